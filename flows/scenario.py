"""Try a fault by hand: steady state, inject, detect, remediate, judge, restore. Only on an inventory marked as a lab."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import httpx
from prefect import flow, get_run_logger, runtime, tags, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.schema import Inventory, Resource
from flows.monitor import monitor
from flows.reset import end_loads, require_lab, to_baseline
from tasks.catalog import load_catalog
from tasks.connecting import Live, current, live
from tasks.core.declare import Scenario
from tasks.core.errors import EvenkeelError
from tasks.core.models import FixRecord, Health
from tasks.core.scoring import ScenarioResult, judge
from tasks.evidence import Fingerprint, fingerprint, starts_of, traffic_since
from tasks.probing import probe_all, probe_resource
from tasks.scenarios.stage import InjectionFailedError, ShopLoads, Stage

POLL_SECONDS = 0.1
STEADY_SECONDS = 30.0
MONITOR_ALIVE_SECONDS = 20.0
OWN_SWEEP_SECONDS = 2.0

ScenarioName = Annotated[str, Field(json_schema_extra={"enum": sorted(load_catalog().scenarios)})]


class NotSteadyError(EvenkeelError):
    """The lab is not in its steady state, so nothing can be concluded from a fault."""


@flow(name="scenario", flow_run_name="Try {name} on {inventory}", persist_result=True)
async def scenario(name: ScenarioName, inventory: str = "lab", timeout_seconds: float = 60) -> State[ScenarioResult]:
    """Inject a fault into a lab and judge how it is met.

    Args:
        name: The fault.
        inventory: Name of an inventory marked `lab: true`.
        timeout_seconds: How long detection and remediation may take together.
    """
    declared = load_catalog().scenarios.get(name)
    if declared is None:
        raise ValueError(f"name: no scenario {name!r}; known: {', '.join(sorted(load_catalog().scenarios))}")
    async with live(inventory) as opened:
        url = require_lab(opened.inventory)
        target = next((one for one in opened.inventory.resources if one.kind is declared.resource_kind), None)
        if target is None:
            raise ValueError(f"inventory: {inventory!r} has no resource of kind {declared.resource_kind}, which {name} needs")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as shop, _watched(opened, timeout_seconds):
            result = await _try(opened, declared, target, ShopLoads(shop), timeout_seconds)
    await acreate_table_artifact(
        [result.model_dump(mode="json")], key=f"scenario-{name.replace('_', '-')}", description=f"## {declared.title}\n{declared.summary}"
    )
    if result.problems:
        return Failed(message="; ".join(result.problems), data=result)
    return Completed(message=f"healthy {result.healthy_seconds:.2f} s after injection, {result.outcome}", data=result)


async def _try(opened: Live, declared: Scenario, target: Resource, loads: ShopLoads, timeout_seconds: float) -> ScenarioResult:
    await end_loads(opened)
    await to_baseline(opened, target)
    await steady_state(STEADY_SECONDS)
    before = await fingerprint(opened)
    starts = await starts_of(opened, besides=target.name)
    stage = Stage(target, loads, lambda: probe_resource(opened, target))
    injected_at = datetime.now(UTC)
    generator = declared.function(stage)
    try:
        await inject(generator, stage, declared, injected_at)
        fix = await wait_for_fix(target.name, injected_at, timeout_seconds)
        traffic = await traffic_since(_traffic_url(opened.inventory), injected_at.timestamp())
        healthy = (await probe_resource(opened, target)).health is Health.HEALTHY
        restarted = [name for name, start in (await starts_of(opened, besides=target.name)).items() if starts.get(name) != start]
    finally:
        await restore(generator, declared)
    await to_baseline(opened, target)
    await steady_state(STEADY_SECONDS)
    after: Fingerprint = await fingerprint(opened, before.last_order)
    return judge(
        declared,
        fix,
        injected_at=injected_at,
        healthy_while_injected=healthy,
        data_unharmed=before == after,
        requests=traffic.requests,
        requests_failed=traffic.failures,
        neighbours_restarted=restarted,
    )


@task(name="steady state", cache_policy=NO_CACHE, persist_result=False)
async def steady_state(timeout_seconds: float) -> None:
    """Wait until every resource of the lab is healthy; NotSteadyError names what is not."""
    opened = current()
    deadline = time.monotonic() + timeout_seconds
    while True:
        unwell = [one for one in await probe_all(opened, opened.inventory.resources) if one.health is not Health.HEALTHY]
        busy = await opened.records.open_fixes(opened.inventory.name)
        if not unwell and not busy:
            return
        if time.monotonic() >= deadline:
            told = "; ".join(f"{one.resource} is {one.health} {one.summary}" for one in unwell)
            raise NotSteadyError(f"not steady after {timeout_seconds:g} s: {told or 'remediations are under way'}")
        await asyncio.sleep(POLL_SECONDS)


@task(name="inject", task_run_name="inject {declared.name}", cache_policy=NO_CACHE, persist_result=False)
async def inject(generator: AsyncGenerator[None], stage: Stage, declared: Scenario, injected_at: datetime) -> None:
    """Inject the fault; InjectionFailedError unless one of its symptoms shows, here or in an incident."""
    await anext(generator)
    observation = await stage.observe()
    shown = {finding.symptom for finding in observation.findings}
    if shown & declared.symptoms:
        get_run_logger().info("the symptom shows: %s", observation.summary)
        return
    if await _fix_since(current(), stage.resource.name, injected_at) is not None:
        get_run_logger().info("the symptom was seen by the monitor first")
        return
    raise InjectionFailedError(f"{declared.name}: none of {sorted(declared.symptoms)} appeared; measured: {observation.reading.values}")


@task(name="restore", task_run_name="restore {declared.name}", cache_policy=NO_CACHE, persist_result=False)
async def restore(generator: AsyncGenerator[None], declared: Scenario) -> None:
    """Take the fault back."""
    await generator.aclose()
    get_run_logger().info("%s: taken back", declared.title)


@task(name="wait for the remediation", cache_policy=NO_CACHE, persist_result=False)
async def wait_for_fix(resource: str, since: datetime, timeout_seconds: float) -> FixRecord | None:
    """The closed record of the remediation that began after the injection, or None when time is up."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        record = await _fix_since(current(), resource, since)
        if record is not None and record.closed_at is not None:
            get_run_logger().info("%s: %s", record.verdict, record.message)
            return record
        await asyncio.sleep(POLL_SECONDS)
    return None


async def _fix_since(opened: Live, resource: str, since: datetime) -> FixRecord | None:
    records = await opened.records.history(resource=resource, inventory=opened.inventory.name, limit=1, since=since)
    return records[0] if records else None


@asynccontextmanager
async def _watched(opened: Live, timeout_seconds: float) -> AsyncIterator[None]:
    """Use the scheduled monitor where one sweeps; otherwise start one beside the scenario."""
    holder = await opened.records.current_monitor(opened.inventory.name)
    now = datetime.now(UTC)
    last_sweep_at = None if holder is None else holder[1]
    if last_sweep_at is not None and now - last_sweep_at < timedelta(seconds=MONITOR_ALIVE_SECONDS):
        yield
        return
    get_run_logger().info("no monitor sweeps %s now, so this run brings its own", opened.inventory.name)
    with tags("scenario"):
        watching = asyncio.ensure_future(
            monitor(opened.inventory.name, OWN_SWEEP_SECONDS, timeout_seconds + STEADY_SECONDS, return_state=True)
        )
    try:
        yield
    finally:
        # Whoever takes the inventory over ends that run at its next sweep.
        await opened.records.take_over_monitor(opened.inventory.name, str(runtime.flow_run.id), datetime.now(UTC))
        await watching


def _traffic_url(inventory: Inventory) -> str:
    assert inventory.shop is not None, "require_lab has seen to it"
    return inventory.shop.traffic_url
