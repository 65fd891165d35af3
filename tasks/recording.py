"""The remediation's claim on its resource: heartbeat while it works, takeover of what a dead process left."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tasks.approvals import close_run
from tasks.connecting import Live
from tasks.core.abandoned import during, outcomes_of, with_journal
from tasks.core.models import FixRecord, Observation, Verdict
from tasks.core.silence import Silences
from tasks.execution import undo_of
from tasks.probing import probe_all
from tasks.records.database import RecordsUnavailable
from tasks.records.rows import OpenFix

HEARTBEAT_SECONDS = 1.0
STALE_SECONDS = 8.0
END_STATES = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
GONE = {StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
"""States of the run that asks a person in which no answer can come any more."""


@asynccontextmanager
async def heartbeat(live: Live, fix_id: str, owner: str) -> AsyncIterator[None]:
    """Keep the claim alive; where it has been taken over, the body is cancelled.

    While the records can't be reached nobody can take it over either, so it is tried on and on.
    """
    body = asyncio.current_task()

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                is_ours = await live.records.heartbeat(fix_id, owner, datetime.now(UTC))
            except RecordsUnavailable as error:
                get_run_logger().warning("heartbeat of %s: %s", fix_id, live.redactor.text(str(error)))
                continue
            if not is_ours:
                if body is not None:
                    body.cancel(f"{fix_id} was taken over by another process")
                return

    beating = asyncio.create_task(beat(), name=f"heartbeat of {fix_id}")
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def take_over_abandoned(
    live: Live, silences: Silences, own: Collection[str] = (), within_reach: Collection[str] = ()
) -> list[FixRecord]:
    """Close the remediations whose process is gone and mark their runs Crashed; each is closed by exactly one caller.

    Args:
        live: The inventory.
        silences: What the caller has heard so far; a process counts as gone after STALE_SECONDS without a new heartbeat.
        own: Resources that the caller's own process heals, which is alive.
        within_reach: The resources that can be measured from here; empty: all.
    """
    open_fixes = await live.records.open_fixes(live.inventory.name)
    for waiting in open_fixes:
        if waiting.waiting_until is not None:
            await _escalate_unanswered(live, waiting)
    at_work = [one for one in open_fixes if one.waiting_until is None and one.resource not in own]
    silent = silences.listen({one.fix_id: one.heartbeat_at for one in at_work}, time.monotonic())
    found: list[FixRecord] = []
    for gone in (one for one in at_work if silent[one.fix_id] >= STALE_SECONDS):
        measured = await _measured(live, gone.resource) if not within_reach or gone.resource in within_reach else None
        record = await _abandon(live, gone, silent[gone.fix_id], measured)
        found += [] if record is None else [record]
    return found


async def _abandon(live: Live, fix: OpenFix, seconds: float, measured: Observation | None) -> FixRecord | None:
    """Close a remediation as abandoned, with all that it had done by its journal, and what is measured now."""
    record = await live.records.get(fix.fix_id)
    if record is None:
        return None
    journal = await live.records.journal(fix.fix_id)
    done = outcomes_of([(entry.step, entry.begun_at, entry.outcome) for entry in journal], partial(undo_of, live))
    record = with_journal(record, done)
    vanished = f"its process vanished {during(record)}"
    now = "" if measured is None else f"; {fix.resource} is {measured.health} {measured.summary}".rstrip()
    message = f"{vanished}{now}; found after {seconds:.0f} s of silence"
    record = record.model_copy(update={"after": measured or record.after})
    closed = await live.records.abandon(record, fix.heartbeat_at, datetime.now(UTC), message)
    if closed is not None:
        get_run_logger().warning("%s: remediation %s was abandoned: %s", fix.resource, fix.fix_id, message)
        await _mark_crashed(closed.flow_run_id, vanished)
    return closed


async def _measured(live: Live, resource: str) -> Observation | None:
    """What the resource is like; None where the inventory no longer has it."""
    known = [one for one in live.inventory.resources if one.name == resource]
    return (await probe_all(live, known))[0] if known else None


async def _escalate_unanswered(live: Live, fix: OpenFix) -> None:
    """Escalate where the time to answer is over, or the run that asks has ended without an answer."""
    now = datetime.now(UTC)
    if fix.waiting_until is not None and fix.waiting_until < now:
        message = f"a person is needed: nobody answered until {fix.waiting_until:%Y-%m-%d %H:%M:%SZ}; nothing of the plan was done"
        record = await live.records.expire(fix.fix_id, now, message)
    elif gone := await _ending_of_run(fix.flow_run_id):
        message = f"a person is needed: the run that asked for an answer ended as {gone}; nothing of the plan was done"
        record = await live.records.withdraw(fix.fix_id, now, message)
    else:
        return
    if record is None:
        return
    get_run_logger().warning("%s: %s", record.incident.resource, message)
    await close_run(record.flow_run_id, State(type=StateType.FAILED, name=Verdict.ESCALATED.value, message=message))


async def _ending_of_run(flow_run_id: str) -> str:
    """How a run ended from which no answer can come any more; empty: it goes on, or Prefect can't be asked."""
    async with get_client() as client:
        try:
            run = await client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:
            return "deleted"
        except (httpx.HTTPError, OSError):
            return ""
    return str(run.state.name) if run.state is not None and run.state.type in GONE else ""


async def _mark_crashed(flow_run_id: str, message: str) -> None:
    """End a run whose process is gone, with its tasks, and the runs that it was a part of: they were of the same process."""
    async with get_client() as client:
        run_id: UUID | None = UUID(flow_run_id)
        try:
            while run_id is not None:
                run_id = await _parent(client, await _end_run(client, run_id, message))
        except ObjectNotFound:
            get_run_logger().warning("flow run %s of the abandoned remediation is no longer on the server", run_id)
        except (httpx.HTTPError, OSError) as error:
            # The record tells it, and what heals must not wait for what shows.
            get_run_logger().warning("flow run %s could not be marked as Crashed: %s", run_id, type(error).__name__)


async def _end_run(client: PrefectClient, run_id: UUID, message: str) -> FlowRun:
    run = await client.read_flow_run(run_id)
    if run.state is None or run.state.type not in END_STATES:
        await client.set_flow_run_state(run_id, Crashed(message=message), force=True)
    for task_run in await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))):
        if task_run.state is None or task_run.state.type not in END_STATES:
            await client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
    return run


async def _parent(client: PrefectClient, run: FlowRun) -> UUID | None:
    if run.parent_task_run_id is None:
        return None
    return (await client.read_task_run(run.parent_task_run_id)).flow_run_id
