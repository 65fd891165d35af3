"""The steps of trying a fault: steady state, injection, waiting for what is done about it, and taking the fault back."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType

from blocks.schema import Resource
from tasks.approvals import close_run
from tasks.connecting import Live, current
from tasks.core.declare import Ending, Scenario
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError
from tasks.core.models import FixRecord, Health, Verdict
from tasks.core.scoring import ending_of
from tasks.probing import probe_all
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

POLL_SECONDS = 0.1
SHOW_SECONDS = 20.0
SUSTAIN_RECHECK_SECONDS = 0.5
PAST = timedelta(hours=2)
WITHDRAWN = "a person is needed: the question was withdrawn when the scenario ended; nothing of the plan was done"


class NotSteadyError(EvenkeelError):
    """The lab is not in its steady state, so nothing can be concluded from a fault."""


@dataclass(frozen=True)
class Met:
    """How a fault was met."""

    fixes: tuple[FixRecord, ...] = ()
    """Every remediation since the injection, newest first."""
    waiting: frozenset[str] = field(default_factory=frozenset)
    """Ids of those that ask a person."""


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
    """Inject the fault; InjectionFailedError unless one of its symptoms shows within 20 s, here or in an incident."""
    await anext(generator)
    if not declared.symptoms:
        return
    deadline = time.monotonic() + SHOW_SECONDS
    while True:
        observation = await stage.observe()
        if {finding.symptom for finding in observation.findings} & declared.symptoms:
            get_run_logger().info("the symptom shows: %s", observation.summary)
            return
        seen = [fix for fix in await _fixes_since(current(), injected_at) if fix.incident.resource == stage.resource.name]
        if any(set(fix.incident.symptoms) & declared.symptoms for fix in seen):
            get_run_logger().info("the symptom was seen by the monitor first")
            return
        if time.monotonic() >= deadline:
            wanted, values = sorted(declared.symptoms), observation.reading.values
            raise InjectionFailedError(f"{declared.name}: none of {wanted} appeared; it is {observation.health}, measured: {values}")
        await asyncio.sleep(POLL_SECONDS)


@task(name="wait for what is done about it", cache_policy=NO_CACHE, persist_result=False)
async def wait_until_met(declared: Scenario, targets: frozenset[str], since: datetime, timeout_seconds: float) -> Met:
    """The remediations once each resource that is hurt has one that is closed or asks a person, or time is up.

    Where nothing is wrong, the whole time is waited: something may still be done.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        met = await _met_since(current(), since)
        if time.monotonic() >= deadline or (declared.symptoms and _is_settled(declared, targets, met)):
            for fix in met.fixes:
                get_run_logger().info("%s: %s %s", fix.incident.resource, fix.verdict or "open", fix.message)
            return met
        await asyncio.sleep(POLL_SECONDS)


async def require_none_between(targets: frozenset[str], ready_at: datetime, injected_at: datetime) -> None:
    """NotSteadyError where one of these has an incident of just before the fault: what is done for that says nothing of the fault."""
    for fix in await _fixes_since(current(), ready_at):
        if fix.incident.resource in targets and fix.incident.opened_at < injected_at:
            raise NotSteadyError(f"{fix.incident.resource} had an incident before the fault: {fix.incident.summary}")


def _is_settled(declared: Scenario, targets: frozenset[str], met: Met) -> bool:
    """Whether the target's remediations are over, and those of what else is hurt as far as they were begun."""
    if any(fix.verdict is None and fix.id not in met.waiting for fix in met.fixes):
        return False
    ending = ending_of([fix for fix in met.fixes if fix.incident.resource in targets], met.waiting)
    if ending is Ending.LEFT_ALONE:
        return declared.expects is Ending.LEFT_ALONE and bool(met.fixes)
    return True


@task(name="see it stay well", cache_policy=NO_CACHE, persist_result=False)
async def relapse_within(resources: Sequence[Resource], recover_seconds: float, sustain_seconds: float) -> str:
    """What is not well once `recover_seconds` have passed, or within `sustain_seconds` after all were well; empty: nothing."""
    deadline = time.monotonic() + recover_seconds
    while unwell := await _unwell(resources):
        if time.monotonic() >= deadline:
            return f"not well {recover_seconds:g} s after the remediation: {unwell}"
        await asyncio.sleep(POLL_SECONDS)
    began = time.monotonic()
    while time.monotonic() < began + sustain_seconds:
        unwell = await _unwell(resources)
        if unwell:
            return f"well for {time.monotonic() - began:.1f} s only: {unwell}"
        await asyncio.sleep(SUSTAIN_RECHECK_SECONDS)
    return ""


async def _unwell(resources: Sequence[Resource]) -> str:
    found = await probe_all(current(), resources)
    return "; ".join(f"{one.resource} is {one.health} {one.summary}" for one in found if one.health is not Health.HEALTHY)


@task(name="restore", task_run_name="restore {declared.name}", cache_policy=NO_CACHE, persist_result=False)
async def restore(generator: AsyncGenerator[None], declared: Scenario, is_healed: bool) -> str:
    """Take the fault back; first the scenario's own check where it is said to be healed. Answers what the check found."""
    unhealed = ""
    try:
        if is_healed:
            await anext(generator, None)
    except Unhealed as found:
        unhealed = str(found)
    finally:
        await generator.aclose()
    get_run_logger().info("%s: taken back", declared.title)
    return unhealed


@task(name="withdraw questions", cache_policy=NO_CACHE, persist_result=False)
async def withdraw_questions(waiting: frozenset[str]) -> None:
    """Escalate what still asks a person: with the fault taken back there is nothing left to decide."""
    for fix_id in sorted(waiting):
        record = await current().records.withdraw(fix_id, datetime.now(UTC), WITHDRAWN)
        if record is not None and record.flow_run_id:
            await close_run(record.flow_run_id, State(type=StateType.FAILED, name=Verdict.ESCALATED.value, message=WITHDRAWN))


@asynccontextmanager
async def past_fix(opened: Live, target: Resource, message: str) -> AsyncIterator[None]:
    """A closed fix of the resource on record, with that message; deleted again at the end."""
    observation = (await probe_all(opened, [target]))[0]
    now = datetime.now(UTC) - PAST
    incident = open_incident(opened.inventory.name, observation, now)
    record = FixRecord(id=incident.id, incident=incident, before=observation, opened_at=now)
    owner = "the records' keeper"
    if not await opened.records.open_fix(record, owner, now):
        raise InjectionFailedError(f"{target.name}: a remediation is under way, so no past one can be written")
    try:
        await opened.records.close_fix(record, owner, Verdict.COMPLETED, message, now)
        yield
    finally:
        await opened.records.delete(ids=[record.id])


async def _met_since(opened: Live, since: datetime) -> Met:
    fixes = await _fixes_since(opened, since)
    waiting = {one.fix_id for one in await opened.records.open_fixes(opened.inventory.name) if one.waiting_until is not None}
    return Met(tuple(fixes), frozenset(waiting))


async def _fixes_since(opened: Live, since: datetime) -> list[FixRecord]:
    return await opened.records.history(inventory=opened.inventory.name, limit=50, since=since)
