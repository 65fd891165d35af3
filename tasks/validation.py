"""Whether a fix took hold: healthy within its time, and healthy for long enough."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.schema import Resource
from tasks.connecting import current
from tasks.core.models import Finding, Health, Observation
from tasks.core.trends import still_predicted
from tasks.probing import probe_all

RECHECK_SECONDS = 0.1
SETTLE_RECHECK_SECONDS = 0.5


@task(name="validate", task_run_name="wait until {resource.name} is healthy", cache_policy=NO_CACHE, persist_result=False)
async def wait_until_healthy(resource: Resource, recover_seconds: float, expected: Sequence[Finding] = ()) -> Observation:
    """The first healthy observation, or the last one when time is up. What was predicted is healed when it would come late enough."""
    deadline = time.monotonic() + recover_seconds
    while True:
        observation = await _measured(resource, expected)
        if observation.health is Health.HEALTHY or time.monotonic() >= deadline:
            get_run_logger().info("%s is %s %s", resource.name, observation.health, observation.summary)
            return observation
        await asyncio.sleep(RECHECK_SECONDS)


@task(name="settle", task_run_name="see {resource.name} stay healthy for {settle_seconds} s", cache_policy=NO_CACHE, persist_result=False)
async def stays_healthy(resource: Resource, settle_seconds: float, since: datetime, expected: Sequence[Finding] = ()) -> Observation:
    """The last observation of the settling time, or the first one that is not healthy: inconclusive is failure."""
    deadline = time.monotonic() + settle_seconds
    while True:
        observation = await _measured(resource, expected)
        if observation.health is not Health.HEALTHY:
            get_run_logger().warning(
                "%s was healthy at %s and is %s again: %s", resource.name, since, observation.health, observation.summary
            )
            return observation
        if time.monotonic() >= deadline:
            return observation
        await asyncio.sleep(min(SETTLE_RECHECK_SECONDS, max(deadline - time.monotonic(), 0.01)))


async def _measured(resource: Resource, expected: Sequence[Finding]) -> Observation:
    return still_predicted((await probe_all(current(), [resource]))[0], expected, resource)
