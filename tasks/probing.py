"""Measuring: every resource of an inventory at once, each under its own deadline."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.schema import Resource
from tasks.connecting import Live, current
from tasks.core.detection import Detection, Escalation, Track, detect
from tasks.core.errors import ProbeBroken
from tasks.core.models import Health, Observation
from tasks.core.trends import History, remembered, with_predictions
from tasks.core.verdicts import observe, unknown
from tasks.redacting import redacted_observation

CONFIRM_AFTER_SECONDS = 0.1
DEADLINE_SLACK_SECONDS = 0.5


@dataclass(frozen=True)
class Known:
    """What a sweep builds on: what the ones before found, who is being healed, and what was left to a person."""

    tracks: Mapping[str, Track] = field(default_factory=dict)
    histories: Mapping[str, History] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    escalations: Mapping[str, Escalation] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """The latest observation of every resource, and what they amount to."""

    observations: tuple[Observation, ...]
    detection: Detection
    histories: dict[str, History]
    seconds: float


async def probe_resource(live: Live, resource: Resource) -> Observation:
    """One observation, without secrets; a probe that is broken or never ends gives UNKNOWN, which says nothing about the server."""
    return redacted_observation(live.redactor, await _measure(live, resource))


async def _measure(live: Live, resource: Resource) -> Observation:
    probe = live.catalog.probes[resource.kind]
    taken_at = datetime.now(UTC)
    started = time.monotonic()
    try:
        async with asyncio.timeout(probe.timeout_seconds + DEADLINE_SLACK_SECONDS):
            reading = await probe.measure(live.probe_client(resource), resource)
    except TimeoutError:
        why = f"not finished within {probe.timeout_seconds + DEADLINE_SLACK_SECONDS:g} s"
        return unknown(resource, why, taken_at=taken_at, seconds=time.monotonic() - started)
    except ProbeBroken as error:
        return unknown(resource, str(error), taken_at=taken_at, seconds=time.monotonic() - started)
    findings = probe.judge(reading, resource)
    return observe(resource, reading, findings, taken_at=taken_at, seconds=time.monotonic() - started)


async def probe_all(live: Live, resources: Sequence[Resource]) -> list[Observation]:
    """Observations in the resources' order, measured concurrently; one hanging server delays no other."""
    taken_at = datetime.now(UTC)
    results = await asyncio.gather(*(probe_resource(live, resource) for resource in resources), return_exceptions=True)
    observations: list[Observation] = []
    for resource, result in zip(resources, results, strict=True):
        if isinstance(result, Observation):
            observations.append(result)
        elif isinstance(result, Exception):
            get_run_logger().error("%s: the probe itself failed", resource.name, exc_info=result)
            observations.append(unknown(resource, f"{type(result).__name__} in the probe, see the log", taken_at=taken_at, seconds=0))
        else:
            raise result  # cancellation and the like
    return observations


async def sweep_once(live: Live, known: Known, only: Collection[str] = ()) -> Sweep:
    """Measure everything, or only some resources; measure suspects once more, and detect."""
    started = time.monotonic()
    named = {one.name: one for one in live.inventory.resources if not only or one.name in only}
    resources = list(named.values())
    measured = await probe_all(live, resources)
    histories = dict(known.histories)
    for resource, observation in zip(resources, measured, strict=True):
        trends = live.catalog.probes[resource.kind].trends
        if trends:
            histories[resource.name] = remembered(
                histories.get(resource.name, {}), observation, trends, resource.thresholds.horizon_seconds
            )

    def looked_ahead(seen: Sequence[Observation]) -> list[Observation]:
        return [
            with_predictions(one, live.catalog.probes[one.kind].trends, histories.get(one.resource, {}), named[one.resource])
            for one in seen
        ]

    def found(tracks: Mapping[str, Track], seen: Sequence[Observation]) -> Detection:
        now = datetime.now(UTC)
        return detect(live.inventory, tracks, seen, busy=known.busy, now=now, escalations=known.escalations)

    observations = {one.resource: one for one in looked_ahead(measured)}
    detection = found(known.tracks, list(observations.values()))
    if detection.suspects:
        await asyncio.sleep(CONFIRM_AFTER_SECONDS)
        again = looked_ahead(await probe_all(live, [named[name] for name in detection.suspects]))
        observations.update({one.resource: one for one in again})
        confirmed = found(detection.tracks, again)
        detection = confirmed.model_copy(
            update={
                "incidents": detection.incidents + confirmed.incidents,
                "held_back": detection.held_back | confirmed.held_back,
            }
        )
    return Sweep(tuple(observations.values()), detection, histories, time.monotonic() - started)


@task(name="sweep", task_run_name="sweep {number}", cache_policy=NO_CACHE, persist_result=False)
async def sweep(number: int, known: Known, only: Collection[str] = ()) -> Sweep:
    """One sweep over the whole inventory, or only some of it: one task run, however many resources."""
    found = await sweep_once(current(), known, only)
    logger = get_run_logger()
    if not known.tracks:
        healthy = sum(observation.health is Health.HEALTHY for observation in found.observations)
        logger.info("%d of %d resources are healthy", healthy, len(found.observations))
    for observation in found.observations:
        before = known.tracks.get(observation.resource)
        # What is well from the start is not worth a line each.
        known_as = Health.HEALTHY if before is None else before.health
        if known_as is observation.health:
            continue
        logger.info("%s is %s %s", observation.resource, observation.health, observation.summary)
        why = found.detection.held_back.get(observation.resource)
        if why:
            logger.info("%s: no incident: %s", observation.resource, why)
    return found


@task(name="probe", task_run_name="probe {resource}", cache_policy=NO_CACHE, persist_result=False)
async def probe(resource: str) -> Observation:
    """One resource, once."""
    live = current()
    return (await probe_all(live, [live.inventory.resource(resource)]))[0]
