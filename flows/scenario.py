"""Try a fault by hand: steady state, inject, detect, remediate, judge, restore. Only on an inventory marked as a lab."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx
from prefect import flow, get_run_logger, tags
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.schema import Inventory, Resource
from flows.monitor import monitor
from flows.remediate import AutonomyChoice
from flows.reset import end_loads, require_lab, to_baseline
from tasks.catalog import load_catalog
from tasks.charge import PlannerChoice, in_charge
from tasks.connecting import Live, live
from tasks.core.declare import Ending, Scenario
from tasks.core.scoring import Evidence, ScenarioResult, ending_of, judge
from tasks.evidence import carts_of, changes, fingerprint, harm, put_back, surroundings, traffic_since
from tasks.noise import SWINGS, Neighbours, swinging
from tasks.probing import probe_resource
from tasks.scenarios.stage import ShopLoads, Stage
from tasks.trying import (
    Met,
    inject,
    past_fix,
    relapse_within,
    require_none_between,
    restore,
    steady_state,
    wait_until_met,
    withdraw_questions,
)

STEADY_SECONDS = 30.0
RECOVER_SECONDS = 10.0
QUIET_SECONDS = 10.0
MONITOR_ALIVE_SECONDS = 20.0
OWN_SWEEP_SECONDS = 2.0
SWEPT_POLL_SECONDS = 0.1
DRY_RUNS = {"propose", "observe"}

ScenarioName = Annotated[str, Field(json_schema_extra={"enum": sorted(load_catalog().scenarios)})]


@flow(name="scenario", flow_run_name="Try {name} on {inventory}", persist_result=True)
async def scenario(
    name: ScenarioName,
    inventory: str = "lab",
    timeout_seconds: float = 60,
    sustain_seconds: float = 10,
    autonomy: AutonomyChoice = "as configured",
    planner: PlannerChoice = "as configured",
    neighbours: Neighbours = "well",
) -> State[Any]:
    """Inject a fault into a lab and judge how it is met.

    Args:
        name: The fault.
        inventory: Name of an inventory marked `lab: true`.
        timeout_seconds: How long detection and remediation may take together.
        sustain_seconds: How long everything must stay well after the remediation, while the fault's cause goes on.
        autonomy: `propose` and `observe` are dry runs: what would be injected is told, and nothing is done.
        planner: Who plans meanwhile. `restart` is what healing is compared with: it restarts the resource whatever is wrong, and no policy
            is asked.
        neighbours: Whether what else the lab has is well, or swings just under its thresholds.
    """
    declared = load_catalog().scenarios.get(name)
    if declared is None:
        raise ValueError(f"name: no scenario {name!r}; known: {', '.join(sorted(load_catalog().scenarios))}")
    if timeout_seconds <= 0 or sustain_seconds < 0:
        raise ValueError("timeout_seconds and sustain_seconds: give a number of seconds, the first above 0")
    async with live(inventory) as opened:
        url = require_lab(opened.inventory)
        target = target_of(declared, opened.inventory)
        if autonomy in DRY_RUNS:
            rules = f"its role is {target.role}, autonomy {target.autonomy or opened.inventory.rules.autonomy}"
            told = f"dry run, nothing is injected: on {target.name}: {declared.summary} Expected: {declared.expects}; {rules}"
            return Completed(message=told)
        seconds = timeout_seconds + sustain_seconds
        async with (
            _shop(url) as shop,
            in_charge(opened, planner, 2 * seconds + 4 * STEADY_SECONDS),
            _watched(opened, seconds, autonomy),
            swinging(
                [_stage(opened, one, shop) for one in _swinging(opened.inventory, target, declared)] if neighbours == "swinging" else []
            ),
        ):
            result = await _try(opened, declared, _stage(opened, target, shop), timeout_seconds, sustain_seconds)
    await acreate_table_artifact(
        [result.model_dump(mode="json")], key=f"scenario-{name.replace('_', '-')}", description=f"## {declared.title}\n{declared.summary}"
    )
    if result.problems:
        return Failed(message="; ".join(result.problems), data=result)
    healthy = "" if result.healthy_seconds is None else f", healthy {result.healthy_seconds:.2f} s after injection"
    return Completed(message=f"{result.outcome}{healthy}; expected {result.expected}", data=result)


def target_of(declared: Scenario, inventory: Inventory) -> Resource:
    """The resource that a fault hurts; ValueError where the inventory has none that fits."""
    fitting = [one for one in inventory.resources if one.kind is declared.resource_kind and declared.target in {"", one.name}]
    if not fitting:
        wanted = declared.target or f"resource of kind {declared.resource_kind}"
        raise ValueError(f"inventory: {inventory.name!r} has no {wanted}, which {declared.name} needs")
    missing = sorted(declared.also - {one.name for one in inventory.resources})
    if missing:
        raise ValueError(f"inventory: {inventory.name!r} has no {missing[0]}, which {declared.name} needs")
    runs_in = "process" if fitting[0].runtime is None else fitting[0].runtime.type
    if runs_in not in declared.runtimes:
        wanted = " or ".join(sorted(declared.runtimes))
        raise ValueError(f"name: {declared.name} needs a {wanted} to hurt; {fitting[0].name} of {inventory.name!r} is a {runs_in}")
    return fitting[0]


def _with_what_it_runs_in(inventory: Inventory, resources: Sequence[Resource]) -> frozenset[str]:
    """The names of the resources, and of those that are the same process or container seen otherwise."""
    runtimes = [one.runtime for one in resources if one.runtime is not None]
    return frozenset([*(one.name for one in resources), *(one.name for one in inventory.resources if one.runtime in runtimes)])


def _swinging(inventory: Inventory, target: Resource, declared: Scenario) -> list[Resource]:
    """The resources that a fault does not hurt, and that can swing."""
    hurt = _with_what_it_runs_in(inventory, [target, *(inventory.resource(name) for name in declared.also)])
    return [one for one in inventory.resources if one.name not in hurt and one.kind in SWINGS and "application" in one.logins]


@asynccontextmanager
async def _shop(url: str | None) -> AsyncIterator[httpx.AsyncClient | None]:
    """Where the shop's loads are called; None where the lab has no shop."""
    if url is None:
        yield None
        return
    async with httpx.AsyncClient(base_url=url, trust_env=False) as shop:
        yield shop


def _stage(opened: Live, target: Resource, shop: httpx.AsyncClient | None) -> Stage:
    logins = {key: (login.username, login.password.get_secret_value()) for key, login in opened.logins.items()}
    return Stage(
        resource=target,
        inventory=opened.inventory,
        loads=ShopLoads(shop),
        observe=lambda: probe_resource(opened, target),
        open_client=opened.tool_client,
        logins=logins,
        past_fix=lambda message: past_fix(opened, target, message),
    )


async def _try(opened: Live, declared: Scenario, stage: Stage, timeout_seconds: float, sustain_seconds: float) -> ScenarioResult:
    target = stage.resource
    hurt = [target, *(opened.inventory.resource(name) for name in sorted(declared.also))]
    targets = _with_what_it_runs_in(opened.inventory, [target])
    names = _with_what_it_runs_in(opened.inventory, hurt)
    await end_loads(opened)
    for one in hurt:
        await to_baseline(opened, one)
    ready_at = datetime.now(UTC)
    await steady_state(STEADY_SECONDS)
    data, carts, around = await fingerprint(opened), await carts_of(opened), await surroundings(opened, names)
    injected_at = datetime.now(UTC)
    generator = declared.function(stage)
    met, relapse, is_healed = Met(), "", False
    try:
        await inject(generator, stage, declared, injected_at)
        await require_none_between(targets, ready_at, injected_at)
        met = await wait_until_met(declared, targets, injected_at, timeout_seconds if declared.symptoms else QUIET_SECONDS)
        # Once more: a remediation is on record a moment after its incident.
        await require_none_between(targets, ready_at, injected_at)
        is_healed = ending_of([fix for fix in met.fixes if fix.incident.resource in targets], met.waiting) is Ending.HEALED
        if is_healed:
            relapse = await relapse_within(hurt, RECOVER_SECONDS, sustain_seconds)
            met = await wait_until_met(declared, targets, injected_at, timeout_seconds)
        traffic = await traffic_since(opened.inventory.shop, injected_at.timestamp())
    finally:
        unhealed = await restore(generator, declared, is_healed)
        await withdraw_questions(met.waiting)
    for one in hurt:
        await to_baseline(opened, one)
    await steady_state(STEADY_SECONDS)
    evidence = Evidence(
        harm=harm(data, await fingerprint(opened, data.last_order)),
        requests=traffic.requests,
        requests_failed=traffic.failures,
        changed_neighbours=changes(around, await surroundings(opened, names)),
        relapse=relapse,
        unhealed=unhealed,
    )
    if evidence.harm:
        await put_back(opened, carts)
    result = judge(declared, targets, met.fixes, evidence, injected_at=injected_at, waiting=met.waiting)
    return result.model_copy(update={"runtime": "" if target.runtime is None else target.runtime.type})


@asynccontextmanager
async def _watched(opened: Live, seconds: float, autonomy: AutonomyChoice) -> AsyncIterator[None]:
    """Use the scheduled monitor where one sweeps; otherwise start one beside the scenario."""
    if await opened.records.monitors_at_work(opened.inventory.name, datetime.now(UTC) - timedelta(seconds=MONITOR_ALIVE_SECONDS)):
        yield
        return
    get_run_logger().info("no monitor sweeps %s now, so this run brings its own", opened.inventory.name)
    with tags("scenario"):
        watching = asyncio.ensure_future(
            monitor(opened.inventory.name, OWN_SWEEP_SECONDS, seconds + 3 * STEADY_SECONDS, autonomy=autonomy, return_state=True)
        )
    began = datetime.now(UTC)
    try:
        yield
    finally:
        await _has_swept(opened, watching, began)
        # Whoever takes the inventory over ends that run at its next sweep.
        await opened.records.release_monitor(opened.inventory.name, datetime.now(UTC))
        await watching


async def _has_swept(opened: Live, watching: asyncio.Future[Any], since: datetime) -> None:
    """Wait until the run that was started has taken the inventory over: one that comes to it later would not hear that it is not needed."""
    deadline = time.monotonic() + STEADY_SECONDS
    while not watching.done() and time.monotonic() < deadline:
        holder = await opened.records.current_monitor(opened.inventory.name)
        if holder is not None and holder[1] is not None and holder[1] >= since:
            return
        await asyncio.sleep(SWEPT_POLL_SECONDS)
