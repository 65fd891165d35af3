"""One fault of a soak: brought about from outside, met by the scheduled monitors alone, and judged by the scenario's own checks.

The steps are those of the flow `scenario`, on the resources that the fault hurts instead of the whole lab: others may be hurt meanwhile.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from blocks.schema import Resource
from flows.reset import apply_baseline
from flows.scenario import target_of
from tasks.connecting import Live, live
from tasks.core.declare import Ending, Scenario
from tasks.core.models import FixRecord, Health, Observation, Step
from tasks.core.scoring import Evidence, ScenarioResult, ending_of, judge
from tasks.evidence import Fingerprint, changes, fingerprint, harm, surroundings, traffic_since
from tasks.probing import probe_all, probe_resource
from tasks.scenarios.stage import ShopLoads, Stage
from tasks.trying import Met, NotSteadyError, inject, past_fix, restore, wait_until_met, withdraw_questions
from tests.soak.faults import Ground, Place

INVENTORY = "lab"
# Outcomes count here, on a machine that may be busy with other things.
STEADY_SECONDS = 90.0
MET_SECONDS = 120.0
QUIET_SECONDS = 8.0
RECOVER_SECONDS = 30.0
SUSTAIN_SECONDS = 2.0
POLL_SECONDS = 0.5
SWEEPS = 2
"""The first to end may have begun earlier."""


@dataclass(frozen=True)
class _Surroundings:
    """What nothing should change while a fault goes on, as far as no other fault does."""

    data: Fingerprint
    resources: dict[str, dict[str, str]]


async def try_fault(declared: Scenario, ground: Ground, place: Place) -> ScenarioResult:
    """Bring the fault about, and judge how it was met. Any error says that nothing can be concluded."""
    async with live(INVENTORY) as opened, _shop(opened) as shop:
        target = target_of(declared, opened.inventory)
        stage = _stage(opened, target, shop)
        hurt = [opened.inventory.resource(name) for name in sorted(place.names)]
        await _steady(opened, hurt)
        before = await _look(opened, ground, place)
        await _swept(opened)
        await _settled(opened, hurt, time.monotonic() + STEADY_SECONDS)
        injected_at = datetime.now(UTC)
        generator = declared.function(stage)
        met, relapse, is_healed = Met(), "", False
        try:
            await inject.fn(generator, stage, declared, injected_at)
            met = await _met(declared, place, target, injected_at)
            is_healed = ending_of(_of(met.fixes, {target.name}), met.waiting) is Ending.HEALED
            if is_healed:
                relapse = await _relapse(opened, hurt)
                met = await _met(declared, place, target, injected_at)
            traffic = await traffic_since(opened.inventory.shop, injected_at.timestamp())
        finally:
            unhealed = await restore.fn(generator, declared, is_healed)
            await withdraw_questions.fn(met.waiting)
        await _steady(opened, hurt)
        after = await _look(opened, ground, place, before.data.last_order)
        evidence = Evidence(
            harm=harm(before.data, after.data),
            requests=traffic.requests,
            requests_failed=traffic.failures,
            changed_neighbours=changes(_both(before.resources, after.resources, place), after.resources),
            relapse=relapse,
            unhealed=unhealed,
        )
        return judge(declared, {target.name}, met.fixes, evidence, injected_at=injected_at, waiting=met.waiting)


@asynccontextmanager
async def _shop(opened: Live) -> AsyncIterator[httpx.AsyncClient | None]:
    shop = opened.inventory.shop
    if shop is None:
        yield None
        return
    async with httpx.AsyncClient(base_url=shop.url, trust_env=False) as client:
        yield client


def _stage(opened: Live, target: Resource, shop: httpx.AsyncClient | None) -> Stage:
    return Stage(
        resource=target,
        inventory=opened.inventory,
        loads=ShopLoads(shop),
        observe=lambda: probe_resource(opened, target),
        open_client=opened.tool_client,
        logins={key: (login.username, login.password.get_secret_value()) for key, login in opened.logins.items()},
        past_fix=lambda message: past_fix(opened, target, message),
    )


async def _steady(opened: Live, resources: Sequence[Resource]) -> None:
    """The resources at their baseline, healthy, and nothing done about them. NotSteadyError says what is not so in time."""
    deadline = time.monotonic() + STEADY_SECONDS
    await _settled(opened, resources, deadline)
    for resource in resources:
        for call in resource.baseline:
            # What is there already is left alone; where it is not, a moment's load of the change is waited for below.
            await apply_baseline.fn(Step(tool=call.tool, target=resource.name, args=call.args, why="baseline of the lab"))
    await _settled(opened, resources, deadline)


async def _settled(opened: Live, resources: Sequence[Resource], deadline: float) -> None:
    names = {one.name for one in resources}
    while True:
        unwell = await _unwell(opened, resources)
        busy = [one.resource for one in await opened.records.open_fixes(INVENTORY) if one.resource in names]
        if not unwell and not busy:
            return
        if time.monotonic() >= deadline:
            told = "; ".join([*_told(unwell), *(f"{name} is being healed" for name in busy)])
            raise NotSteadyError(f"not steady after {STEADY_SECONDS:g} s: {told}")
        await asyncio.sleep(POLL_SECONDS)


async def _swept(opened: Live) -> None:
    """Wait until a sweep that began after this is over: what was seen of the fault before has become an incident by then, or never does."""
    deadline, seen = time.monotonic() + STEADY_SECONDS, set[object]()
    while len(seen) <= SWEEPS and time.monotonic() < deadline:
        seen.add(await opened.records.current_monitor(INVENTORY))
        await asyncio.sleep(POLL_SECONDS)


async def _unwell(opened: Live, resources: Sequence[Resource]) -> list[Observation]:
    return [one for one in await probe_all(opened, resources) if one.health is not Health.HEALTHY]


def _told(observations: Sequence[Observation]) -> list[str]:
    return [f"{one.resource} is {one.health} {one.summary}" for one in observations]


async def _look(opened: Live, ground: Ground, place: Place, last_order: int | None = None) -> _Surroundings:
    """What is around the fault now; what others hurt, or hurt meanwhile, is left out."""
    async with ground.looking:
        disturbed = frozenset(place.disturbed)
        data = await fingerprint(opened, last_order, disturbed)
        return _Surroundings(data, await surroundings(opened, disturbed | place.names))


def _both(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]], place: Place) -> dict[str, dict[str, str]]:
    """What was read both times, and not hurt by another fault in between."""
    return {name: state for name, state in before.items() if name in after and name not in place.disturbed}


def _of(fixes: Sequence[FixRecord], names: Collection[str]) -> list[FixRecord]:
    return [fix for fix in fixes if fix.incident.resource in names]


async def _met(declared: Scenario, place: Place, target: Resource, since: datetime) -> Met:
    """How the fault was met: every remediation since, without those of what other faults hurt."""
    seconds = MET_SECONDS if declared.symptoms else QUIET_SECONDS
    met = await wait_until_met.fn(declared, frozenset({target.name}), since, seconds)
    fixes = tuple(fix for fix in met.fixes if fix.incident.resource in place.names or fix.incident.resource not in place.disturbed)
    return Met(fixes, met.waiting & {fix.id for fix in fixes})


async def _relapse(opened: Live, resources: Sequence[Resource]) -> str:
    """What does not get well in time, or is measured as unwell twice in a row afterwards; empty: nothing.

    A measurement that fails says nothing of the server, and on a busy machine some do.
    """
    deadline = time.monotonic() + RECOVER_SECONDS
    while unwell := await _unwell(opened, resources):
        if time.monotonic() >= deadline:
            return f"not well {RECOVER_SECONDS:g} s after the remediation: {'; '.join(_told(unwell))}"
        await asyncio.sleep(POLL_SECONDS)
    end, before = time.monotonic() + SUSTAIN_SECONDS, frozenset[str]()
    while True:
        found = [one for one in await _unwell(opened, resources) if one.health.is_breach]
        again = [one for one in found if one.resource in before]
        if again:
            return f"well at first only: {'; '.join(_told(again))}"
        if time.monotonic() >= end and not found:
            return ""
        before = frozenset(one.resource for one in found)
        await asyncio.sleep(POLL_SECONDS)
