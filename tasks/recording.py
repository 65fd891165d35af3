"""The remediation's claim on its resource: heartbeat while it works, takeover of what a dead process left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tasks.approvals import close_run
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.records.rows import OpenFix

HEARTBEAT_SECONDS = 1.0
STALE_SECONDS = 8.0
END_STATES = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}


@asynccontextmanager
async def heartbeat(live: Live, fix_id: str, owner: str) -> AsyncIterator[None]:
    """Keep the claim alive; where it has been taken over, the body is cancelled."""
    body = asyncio.current_task()

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if not await live.records.heartbeat(fix_id, owner, datetime.now(UTC)):
                if body is not None:
                    body.cancel(f"{fix_id} was taken over by another process")
                return

    beating = asyncio.create_task(beat(), name=f"heartbeat of {fix_id}")
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def take_over_abandoned(live: Live) -> list[FixRecord]:
    """Close the remediations whose process is gone and mark their runs Crashed; each is closed by exactly one caller."""
    now = datetime.now(UTC)
    stale_before = now - timedelta(seconds=STALE_SECONDS)
    abandoned: list[FixRecord] = []
    for open_fix in await live.records.open_fixes(live.inventory.name):
        if open_fix.waiting_until is not None:
            if open_fix.waiting_until < now:
                await _escalate_unanswered(live, open_fix, now)
            continue
        if open_fix.heartbeat_at >= stale_before:
            continue
        steps = await live.records.interrupted_steps(open_fix.fix_id)
        during = f"during {steps[-1].tool}" if steps else "between two steps"
        silent = (now - open_fix.heartbeat_at).total_seconds()
        message = f"its process vanished {during}; found by a later sweep after {silent:.0f} s of silence"
        record = await live.records.abandon(open_fix.fix_id, stale_before, now, message)
        if record is None:
            continue
        get_run_logger().warning("%s: remediation %s was abandoned: %s", record.incident.resource, record.id, message)
        await _mark_crashed(record.flow_run_id, message)
        abandoned.append(record)
    return abandoned


async def _escalate_unanswered(live: Live, open_fix: OpenFix, now: datetime) -> None:
    message = f"a person is needed: nobody answered until {open_fix.waiting_until:%Y-%m-%d %H:%M:%SZ}; nothing of the plan was done"
    record = await live.records.expire(open_fix.fix_id, now, message)
    if record is None:
        return
    get_run_logger().warning("%s: %s", record.incident.resource, message)
    await close_run(record.flow_run_id, State(type=StateType.FAILED, name=Verdict.ESCALATED.value, message=message))


async def _mark_crashed(flow_run_id: str, message: str) -> None:
    async with get_client() as client:
        try:
            run = await client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:
            get_run_logger().warning("flow run %s of the abandoned remediation is no longer on the server", flow_run_id)
            return
        if run.state is None or run.state.type not in END_STATES:
            await client.set_flow_run_state(UUID(flow_run_id), Crashed(message=message), force=True)
        for task_run in await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))):
            if task_run.state is None or task_run.state.type not in END_STATES:
                await client.set_task_run_state(task_run.id, Crashed(message=message), force=True)
