"""The one way in which a tool is executed: journalled before, bounded in time, read back, never blindly repeated."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from blocks.schema import Risk
from tasks.authorising import kill_switch
from tasks.connecting import Live, current
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change, Outcome, OutcomeStatus, Step
from tasks.core.plans import parse_args
from tasks.progress import shown_progress
from tasks.redacting import redacted_change, redacted_error
from tasks.tracing import span

STATUS_OF_ERROR: dict[type[Exception], OutcomeStatus] = {
    NotApplicable: OutcomeStatus.NOT_APPLICABLE,
    Unreachable: OutcomeStatus.UNREACHABLE,
    OutcomeUnknown: OutcomeStatus.OUTCOME_UNKNOWN,
    ToolFailed: OutcomeStatus.FAILED,
}


class StoppedError(EvenkeelError):
    """The kill switch is on; nothing was sent."""


class OwnershipLostError(EvenkeelError):
    """Another process has taken the remediation over; this one must not act any more."""


async def call_tool(live: Live, step: Step) -> Change:
    """Run the step's tool under its deadline. A tool that does not end in time leaves an unknown outcome.

    StoppedError while the kill switch is on, unless the tool only reads.
    """
    tool = live.catalog.tools[step.tool]
    args = parse_args(tool, step)
    stopped = "" if tool.risk is Risk.READ_ONLY else await kill_switch()
    if stopped:
        raise StoppedError(f"{tool.name}: the kill switch is on: {stopped}")
    client = live.tool_client(live.inventory.resource(step.target))
    known = {"evenkeel.tool": tool.name, "evenkeel.resource": step.target, "evenkeel.risk": tool.risk.value}
    try:
        with span(f"tool {tool.name}", known):
            async with asyncio.timeout(tool.timeout_seconds):
                return redacted_change(live.redactor, await tool.function(client, args))
    except TimeoutError as error:
        raise OutcomeUnknown(f"{tool.name}: not finished within {tool.timeout_seconds:g} s") from error
    except EvenkeelError as error:
        masked = redacted_error(live.redactor, error)  # Prefect shows it in the run's state
        if masked is None:
            raise
        raise masked from None


async def _only_unreachable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(await state.aresult(raise_on_failure=False), Unreachable)


@task(
    name="step",
    task_run_name="{step.tool} on {step.target}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[0.2, 1.0],
    retry_condition_fn=_only_unreachable,
)
async def run_step(step: Step) -> Change:
    """One tool call. Repeated only while nothing could be sent."""
    logger = get_run_logger()
    logger.info("%s on %s with %s: %s", step.tool, step.target, step.args, step.why)
    async with shown_progress(step.target):
        change = await call_tool(current(), step)
    logger.info("before %s", change.before)
    logger.info("after  %s", change.after)
    return change


async def ending_of(step: Step, prefix: str = "") -> Change | Exception:
    """The change that the step's task run made, or the error it ended with."""
    named = run_step.with_options(task_run_name=f"{prefix}{step.tool} on {step.target}")
    # Prefect's annotation of an async task with return_state leaves the awaitable out.
    state = await cast(Awaitable[State[Change]], named(step, return_state=True))
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, Change | Exception):
        return result
    raise TypeError(f"{step.tool}: ended as {state.name} without a result")


async def execute(fix_id: str, owner: str, ordinal: int, step: Step, *, undoes: bool = False) -> Outcome:
    """Journal, run and journal again. OwnershipLostError where the remediation is no longer the caller's."""
    live = current()
    started_at = datetime.now(UTC)
    started = time.monotonic()
    if not await live.records.begin_step(fix_id, owner, ordinal, step, started_at):
        raise OwnershipLostError(f"{fix_id}: taken over by another process before {step.tool}")
    result = await ending_of(step, "undo: " if undoes else "")
    change: Change | None = None
    message = ""
    if isinstance(result, Change):
        status, change = OutcomeStatus.DONE, result
    elif isinstance(result, StoppedError):
        status, message = OutcomeStatus.DENIED, str(result)
    elif isinstance(result, EvenkeelError):
        status, message = STATUS_OF_ERROR.get(type(result), OutcomeStatus.FAILED), str(result)
    else:
        # A defect of the tool: it may have acted, so what follows must measure again.
        status, message = OutcomeStatus.OUTCOME_UNKNOWN, f"{type(result).__name__} in {step.tool}; see the task run's log"
    outcome = Outcome(
        step=step,
        status=status,
        change=change,
        message=message,
        started_at=started_at,
        seconds=time.monotonic() - started,
        undoes=undoes,
    )
    await live.records.end_step(fix_id, ordinal, outcome)
    return outcome


def undo_of(live: Live, outcome: Outcome) -> Step | None:
    """The step that takes a change back; None where nothing was changed, or it can't be taken back."""
    tool = live.catalog.tools.get(outcome.step.tool)  # a record may be older than the catalogue
    undo = None if tool is None else tool.undo
    if undo is None or outcome.change is None or outcome.change.undo is None or not outcome.changed_something:
        return None
    why = f"takes back {outcome.step.tool}, which did not help"
    return Step(tool=undo, target=outcome.step.target, args=outcome.change.undo, why=why)
