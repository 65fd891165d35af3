"""What every remediation goes through once it has its claim, be it started by an incident or by a person's answer."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State, StateType

from blocks.schema import Autonomy
from tasks.acting import act
from tasks.approvals import ApprovalUnavailableError, ask_a_person
from tasks.authorising import authorise_plan, standing_of
from tasks.connecting import Live
from tasks.context import gather_context
from tasks.core.abandoned import TAKEOVER, planned
from tasks.core.models import Attempt, Context, Decision, FixRecord, Health, Plan, Verdict
from tasks.core.policy import Action, Ruling, is_premature
from tasks.core.verdicts import conclude, healed
from tasks.execution import OwnershipLostError
from tasks.planning import make_plan
from tasks.publishing import publish_fix, publish_planning, published
from tasks.recording import heartbeat
from tasks.remembering import remember_plan
from tasks.shadowing import begin_shadow
from tasks.taking_back import attempt_for_left_behind, take_back
from tasks.tracing import describe
from tasks.validation import wait_until_healthy

STATE_TYPE = {
    Verdict.COMPLETED: StateType.COMPLETED,
    Verdict.NO_ACTION_NEEDED: StateType.COMPLETED,
    Verdict.ESCALATED: StateType.FAILED,
    Verdict.FAILED: StateType.FAILED,
    Verdict.ABANDONED: StateType.CRASHED,
}
AWAITING = "AwaitingApproval"
Ending = tuple[Verdict, str]


@dataclass
class Remediation:
    """The state of one remediation while it runs."""

    live: Live
    record: FixRecord
    owner: str
    autonomy: Autonomy | None = None
    last_plan: Plan | None = None
    ordinal: int = 0
    publications: list[asyncio.Task[None]] = field(default_factory=list)

    async def note(self, **changes: Any) -> None:
        """Change the record, and keep it."""
        self.record = self.record.model_copy(update=changes)
        if not await self.live.records.update_fix(self.record, self.owner):
            raise OwnershipLostError(f"{self.record.id}: taken over by another process")

    async def timed(self, stage: str, moment: datetime | None = None) -> None:
        """Keep when a stage was reached, in seconds from the incident."""
        seconds = ((moment or datetime.now(UTC)) - self.record.incident.opened_at).total_seconds()
        await self.note(timings={**self.record.timings, stage: round(seconds, 3)})

    def next_ordinal(self) -> int:
        """The number of the next step in the journal."""
        self.ordinal += 1
        return self.ordinal


class HandedOver(Exception):
    """The way out of a remediation that a person decides now. The remediation goes on in a run of its own when a person has answered."""


def end(verdict: Verdict, message: str) -> State[Any]:
    """The final state of a run, which says what happened."""
    return State(type=STATE_TYPE[verdict], name=verdict.value, message=message)


async def under_claim(remediation: Remediation, work: Callable[[], Awaitable[Ending]]) -> State[Any]:
    """Work while the claim is held, and close the record however it ends, unless a person is asked."""
    verdict, message = Verdict.FAILED, "ended by an error; see the log"
    handed_over = ""
    incident = remediation.record.incident
    describe({"evenkeel.incident": incident.id, "evenkeel.inventory": incident.inventory, "evenkeel.resource": incident.resource})
    describe({"evenkeel.kind": incident.kind.value, "evenkeel.symptoms": incident.symptoms})
    try:
        async with heartbeat(remediation.live, remediation.record.id, remediation.owner):
            try:
                verdict, message = await work()
            except HandedOver as asked:
                handed_over = str(asked)
            except asyncio.CancelledError:
                verdict, message = Verdict.FAILED, "cancelled before it was done"
                raise
            finally:
                if not handed_over:
                    await asyncio.shield(
                        remediation.live.records.close_fix(remediation.record, remediation.owner, verdict, message, datetime.now(UTC))
                    )
    finally:
        await asyncio.gather(*remediation.publications)
    describe({"evenkeel.verdict": AWAITING if handed_over else verdict.value, "evenkeel.planner": remediation.record.planner})
    closed = await remediation.live.records.get(remediation.record.id)
    await published(publish_fix(remediation.live, closed or remediation.record))
    if handed_over:
        get_run_logger().info("%s", handed_over)
        return State(type=StateType.COMPLETED, name=AWAITING, message=handed_over)
    get_run_logger().info("%s: %s", verdict, message)
    return end(verdict, message)


async def heal(remediation: Remediation) -> Ending:
    """Plan and act until it is healthy, a plan says stop, or the retries are used up."""
    rules = remediation.live.inventory.rules
    if not remediation.record.attempts:
        await _take_back_first(remediation)
    while not _is_healed(remediation.record) and len(planned(remediation.record.attempts)) <= rules.max_retries:
        ending = await _attempt(remediation)
        if ending is not None:
            return ending
    return conclude(remediation.record.attempts, remediation.last_plan)


async def _take_back_first(remediation: Remediation) -> None:
    """Take back what an earlier remediation of the resource had changed, without having helped, when its process vanished."""
    attempt = await attempt_for_left_behind(remediation.live, remediation.record, remediation.autonomy)
    if attempt is None:
        return
    await remediation.note(attempts=(attempt,), planner=TAKEOVER)
    done = await take_back(remediation.live, remediation.record, remediation.owner, attempt, remediation.next_ordinal, remediation.timed)
    await remediation.note(attempts=(done,), after=done.after)


def _is_healed(record: FixRecord) -> bool:
    return bool(record.attempts) and healed(record.attempts[-1])


async def _attempt(remediation: Remediation) -> Ending | None:
    """One plan and what came of it; an ending ends the remediation."""
    incident, earlier = remediation.record.incident, remediation.record.attempts
    context = await gather_context(incident, earlier)
    untouched = not any(outcome.changed_something for attempt in earlier for outcome in attempt.outcomes)
    if context.observation.health is Health.HEALTHY and untouched:
        await remediation.note(after=context.observation)
        return Verdict.NO_ACTION_NEEDED, f"{incident.resource} recovered by itself: all checks pass"
    tell_shadow = begin_shadow(remediation.live, context, remediation.autonomy)
    plan = await make_plan(context)
    remediation.last_plan = plan
    await remediation.note(planner=plan.planner)
    standing = await standing_of(remediation.live.inventory, remediation.live.records, context, remediation.autonomy)
    rulings = await authorise_plan(plan, context, standing=standing)
    tell_shadow(await remember_plan(remediation.live, context, plan, rulings, standing))
    again = len(planned(earlier))
    await remediation.timed(f"planned again ({again})" if again else "planned")
    remediation.publications.append(asyncio.create_task(published(publish_planning(context, plan, rulings))))
    attempt = attempt_of(plan, context, rulings)
    await remediation.note(attempts=(*earlier, attempt))
    if plan.decision is Decision.NOTHING:
        return await _seen_through(remediation, plan)
    if plan.decision is Decision.ESCALATE:
        return conclude((), plan)
    denied = [(step, ruling) for step, ruling in zip(plan.steps, rulings, strict=True) if ruling.action is Action.DENY]
    if denied:
        step, ruling = denied[0]
        if is_premature(remediation.live.catalog.tools[step.tool], context.observation):
            return Verdict.NO_ACTION_NEEDED, f"{context.observation.summary}; {step.tool} was planned, but {ruling.reason}"
        return Verdict.ESCALATED, f"a person is needed: {step.tool} {step.args} was planned, but {ruling.reason}"
    asked = [ruling.reason for ruling in rulings if ruling.action is Action.ASK]
    if asked:
        return await _hand_over(remediation, asked[0])
    await perform(remediation, attempt)
    return None


async def _seen_through(remediation: Remediation, plan: Plan) -> Ending:
    """To do nothing is an answer only where the resource gets well by itself; a planner's word for it does not count."""
    incident = remediation.record.incident
    resource = remediation.live.inventory.resource(incident.resource)
    seconds = max(remediation.live.inventory.rules.recover_seconds, plan.patience_seconds)
    after = await wait_until_healthy(resource, seconds, incident.observation.findings)
    await remediation.note(after=after)
    if after.health is Health.HEALTHY:
        return conclude((), plan)
    return (
        Verdict.ESCALATED,
        f"a person is needed: {plan.planner} would do nothing ({plan.diagnosis}), but it is {after.health}: {after.summary}",
    )


async def _hand_over(remediation: Remediation, reason: str) -> Ending:
    """Ask a person, in a run of its own that holds no process while it waits."""
    try:
        message, record = await ask_a_person(remediation.live, remediation.record, remediation.owner, reason)
    except ApprovalUnavailableError as error:
        steps = ", ".join(step.tool for step in remediation.record.attempts[-1].plan.steps)
        return Verdict.ESCALATED, f"a person is needed: {steps} was planned, but {reason}; {error}"
    remediation.record = record
    raise HandedOver(message)


def attempt_of(plan: Plan, context: Context, rulings: list[Ruling]) -> Attempt:
    """A plan that has not been acted on yet."""
    return Attempt(
        plan=plan,
        observed=context.observation,
        facts=context.facts,
        decisions=tuple(f"{ruling.action}: {ruling.reason}" for ruling in rulings),
    )


async def perform(remediation: Remediation, attempt: Attempt) -> None:
    """Act on a plan, and keep what came of it in place of the attempt that was kept last."""
    before = remediation.record.attempts[:-1]
    acted = await act(remediation.live, remediation.record, remediation.owner, attempt, remediation.next_ordinal, remediation.timed)
    await remediation.note(attempts=(*before, acted), after=acted.restored or acted.after)
