"""Carrying out a plan as one transaction: its steps, the validation, and taking back what did not help."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from prefect import get_run_logger
from prefect.transactions import AsyncTransaction, atransaction

from tasks.connecting import Live
from tasks.core.errors import EvenkeelError
from tasks.core.models import Attempt, FixRecord, Health, Observation, Outcome, Step
from tasks.core.verdicts import exonerated, lessened, not_back
from tasks.execution import execute, undo_of
from tasks.probing import probe_all
from tasks.validation import stays_healthy, wait_until_healthy

Timed = Callable[[str, datetime | None], Awaitable[None]]


class DidNotHelpError(EvenkeelError):
    """The resource is not healthy after the plan's steps, so they are rolled back."""


async def act(live: Live, record: FixRecord, owner: str, attempt: Attempt, next_ordinal: Callable[[], int], timed: Timed) -> Attempt:
    """Run the steps and validate. Where it did not help, whatever has an undo is taken back, last change first.

    Where what the steps are for is gone and something else is left, they stay, and the next plan is about the rest.

    A rollback goes through Prefect's transaction: also where this is cancelled or fails by an error of its own.
    """
    resource, rules = live.inventory.resource(record.incident.resource), live.inventory.rules
    outcomes: list[Outcome] = []
    undone: list[Outcome] = []
    after: Observation | None = None
    is_kept = False
    # Steps run outside: Prefect would roll the whole plan back at a first failing try, before anything is measured.
    outside = contextvars.copy_context()

    async def run(step: Step, *, undoes: bool = False) -> Outcome:
        return await asyncio.create_task(execute(record.id, owner, next_ordinal(), step, undoes=undoes), context=outside)

    async def run_in_transaction(step: Step) -> Outcome:
        async with atransaction() as made:
            outcome = await run(step)
            undo = undo_of(live, outcome)

            async def take_back(_transaction: AsyncTransaction) -> None:
                if undo is not None:
                    undone.append(_proven(outcome, await run(undo, undoes=True)))

            made.stage(outcome.model_dump(mode="json"), on_rollback_hooks=[take_back])
        return outcome

    try:
        async with atransaction():
            for step in attempt.plan.steps:
                outcomes.append(await run_in_transaction(step))
                if outcomes[-1].change is None:
                    break  # later steps were planned on this one
            await timed("executed", None)
            recover_seconds = rules.recover_seconds if any(outcome.changed_something for outcome in outcomes) else 0
            after = await asyncio.create_task(validated(live, record, recover_seconds, timed), context=outside)
            is_kept = lessened(attempt.observed, after, _remedied(live, outcomes))
            if not is_kept:
                _require_healthy(after)
    except DidNotHelpError as reason:
        get_run_logger().warning("%s; %s", reason, f"{len(undone)} change(s) taken back" if undone else "there is nothing to take back")
    restored = (await probe_all(live, [resource]))[0] if undone else None
    return attempt.model_copy(
        update={
            "outcomes": (*outcomes, *undone),
            "after": after,
            "kept": is_kept,
            "restored": restored,
            "exonerated": exonerated(attempt.observed, after, restored, _remedied(live, outcomes)),
        }
    )


def _remedied(live: Live, outcomes: Sequence[Outcome]) -> set[str]:
    """The symptoms that the steps which were carried out are remedies for."""
    return {symptom for one in outcomes if one.change is not None for symptom in live.catalog.tools[one.step.tool].symptoms}


def _require_healthy(after: Observation) -> None:
    if after.health is not Health.HEALTHY:
        raise DidNotHelpError(f"{after.resource} is {after.health} {after.summary}")


async def validated(live: Live, record: FixRecord, recover_seconds: float, timed: Timed) -> Observation:
    """What is measured when the resource has had its time to recover, and where it did, to settle."""
    resource = live.inventory.resource(record.incident.resource)
    expected = record.incident.observation.findings
    first = await wait_until_healthy(resource, recover_seconds, expected)
    if first.health is not Health.HEALTHY:
        return first
    await timed("healthy", first.taken_at)
    after = await stays_healthy(resource, live.inventory.rules.settle_seconds, first.taken_at, expected)
    await timed("settled", None)
    return after


def _proven(made: Outcome, undo: Outcome) -> Outcome:
    """The undo's outcome with what the readings say: whether every value that was changed is what it was."""
    if made.change is None or undo.change is None:
        return undo
    differing = not_back(made.change, undo.change)
    return undo.model_copy(update={"message": f"not back: {'; '.join(differing)}" if differing else "the state is back"})
