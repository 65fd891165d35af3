"""Heal one resource: gather, plan, authorise, execute, validate, record."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State, StateType

from tasks.authorising import authorise_plan
from tasks.connecting import Live, live
from tasks.context import first_incident, gather_context
from tasks.core.models import Attempt, Decision, FixRecord, Health, Incident, Observation, Plan, Verdict
from tasks.core.policy import Action
from tasks.core.verdicts import conclude, healed
from tasks.execution import OwnershipLostError, execute, undo_steps
from tasks.planning import make_plan
from tasks.publishing import publish_fix, publish_planning
from tasks.recording import heartbeat
from tasks.validation import stays_healthy, wait_until_healthy

STATE_TYPE = {
    Verdict.COMPLETED: StateType.COMPLETED,
    Verdict.NO_ACTION_NEEDED: StateType.COMPLETED,
    Verdict.ESCALATED: StateType.FAILED,
    Verdict.FAILED: StateType.FAILED,
    Verdict.ABANDONED: StateType.CRASHED,
}


def _run_name() -> str:
    given: dict[str, Any] = runtime.flow_run.parameters
    incident = given.get("incident")
    if incident is None:
        return f"Heal {given['resource']} (by hand)"
    return f"Heal {incident.resource}: {incident.summary}"[:200]


@dataclass
class Remediation:
    """The state of one remediation while it runs."""

    live: Live
    record: FixRecord
    owner: str
    last_plan: Plan | None = None
    ordinal: int = 0
    publications: list[asyncio.Task[None]] = field(default_factory=list)

    def elapsed(self, moment: datetime | None = None) -> float:
        """Seconds from the incident to the moment, or to now."""
        return ((moment or datetime.now(UTC)) - self.record.incident.opened_at).total_seconds()

    async def note(self, **changes: Any) -> None:
        """Change the record, and keep it."""
        self.record = self.record.model_copy(update=changes)
        if not await self.live.records.update_fix(self.record, self.owner):
            raise OwnershipLostError(f"{self.record.id}: taken over by another process")

    async def timed(self, stage: str, moment: datetime | None = None) -> None:
        """Keep when a stage was reached."""
        await self.note(timings={**self.record.timings, stage: round(self.elapsed(moment), 3)})


@flow(name="remediate", flow_run_name=_run_name, persist_result=False)
async def remediate(resource: str, inventory: str = "lab", incident: Incident | None = None) -> State[Any]:
    """Heal one resource of an inventory.

    Args:
        resource: Name of the resource in the inventory.
        inventory: Name of the inventory.
        incident: Given by the monitor; leave it empty to start from a fresh measurement.
    """
    async with live(inventory) as opened:
        target = opened.inventory.resource(resource)
        if incident is None:
            incident, observation = await first_incident(opened, target)
            if incident is None:
                return _end(Verdict.NO_ACTION_NEEDED, f"{resource} is {observation.health} {observation.summary}".strip())
        owner = str(runtime.flow_run.id)
        record = FixRecord(id=incident.id, incident=incident, flow_run_id=owner, before=incident.observation, opened_at=incident.opened_at)
        if not await opened.records.open_fix(record, owner, datetime.now(UTC)):
            return _end(Verdict.NO_ACTION_NEEDED, f"another remediation of {resource} is under way; this one did nothing")
        return await _under_claim(Remediation(opened, record, owner))


async def _under_claim(remediation: Remediation) -> State[Any]:
    """Heal while the claim is held, and close the record however it ends."""
    verdict, message = Verdict.FAILED, "ended by an error; see the log"
    try:
        async with heartbeat(remediation.live, remediation.record.id, remediation.owner):
            try:
                verdict, message = await _heal(remediation)
            except asyncio.CancelledError:
                verdict, message = Verdict.FAILED, "cancelled before it was done"
                raise
            finally:
                await asyncio.shield(
                    remediation.live.records.close_fix(remediation.record, remediation.owner, verdict, message, datetime.now(UTC))
                )
    finally:
        await asyncio.gather(*remediation.publications)
    closed = await remediation.live.records.get(remediation.record.id)
    await publish_fix(remediation.live, closed or remediation.record)
    get_run_logger().info("%s: %s", verdict, message)
    return _end(verdict, message)


async def _heal(remediation: Remediation) -> tuple[Verdict, str]:
    rules = remediation.live.inventory.rules
    while len(remediation.record.attempts) <= rules.max_retries:
        attempt, stop = await _attempt(remediation)
        if attempt is not None:
            await remediation.note(attempts=(*remediation.record.attempts, attempt), after=attempt.after)
            if healed(attempt):
                break
        if stop is not None:
            return stop
    return conclude(remediation.record.attempts, remediation.last_plan)


async def _attempt(remediation: Remediation) -> tuple[Attempt | None, tuple[Verdict, str] | None]:
    """One plan and what came of it; the second value ends the remediation."""
    incident = remediation.record.incident
    earlier = remediation.record.attempts
    context = await gather_context(incident, earlier)
    if context.observation.health is Health.HEALTHY and not earlier:
        await remediation.note(after=context.observation)
        return None, (Verdict.NO_ACTION_NEEDED, f"{incident.resource} recovered by itself: all checks pass")
    plan = await make_plan(context)
    remediation.last_plan = plan
    await remediation.note(planner=plan.planner)
    rulings = await authorise_plan(plan, context)
    await remediation.timed("planned" if not earlier else f"planned again ({len(earlier)})")
    publication = asyncio.create_task(publish_planning(context, plan, rulings))
    remediation.publications.append(publication)
    attempt = Attempt(
        plan=plan,
        observed=context.observation,
        facts=context.facts,
        decisions=tuple(f"{ruling.action}: {ruling.reason}" for ruling in rulings),
    )
    if plan.decision is not Decision.ACT:
        return attempt, conclude((), plan)
    refused = [(step, ruling) for step, ruling in zip(plan.steps, rulings, strict=True) if ruling.action is not Action.ALLOW]
    if refused:
        step, ruling = refused[0]
        return attempt, (Verdict.ESCALATED, f"a person is needed: {step.tool} {step.args} was planned, but {ruling.reason}")
    return await _act(remediation, attempt), None


async def _act(remediation: Remediation, attempt: Attempt) -> Attempt:
    """Execute the steps, validate, and take the changes back where they did not help."""
    live_, record, rules = remediation.live, remediation.record, remediation.live.inventory.rules
    outcomes = []
    for step in attempt.plan.steps:
        remediation.ordinal += 1
        outcome = await execute(record.id, remediation.owner, remediation.ordinal, step)
        outcomes.append(outcome)
        if outcome.change is None:
            break  # later steps were planned on this one
    attempt = attempt.model_copy(update={"outcomes": tuple(outcomes)})
    await remediation.timed("executed")
    after = await _validate(remediation, rules.recover_seconds if attempt.outcomes[-1].changed_something else 0)
    if after.health is not Health.HEALTHY:
        for step in undo_steps(live_, attempt.outcomes):
            remediation.ordinal += 1
            outcomes.append(await execute(record.id, remediation.owner, remediation.ordinal, step, undoes=True))
    return attempt.model_copy(update={"outcomes": tuple(outcomes), "after": after})


async def _validate(remediation: Remediation, recover_seconds: float) -> Observation:
    resource = remediation.live.inventory.resource(remediation.record.incident.resource)
    first = await wait_until_healthy(resource, recover_seconds)
    if first.health is not Health.HEALTHY:
        return first
    await remediation.timed("healthy", first.taken_at)
    after = await stays_healthy(resource, remediation.live.inventory.rules.settle_seconds, first.taken_at)
    await remediation.timed("settled")
    return after


def _end(verdict: Verdict, message: str) -> State[Any]:
    return State(type=STATE_TYPE[verdict], name=verdict.value, message=message)
