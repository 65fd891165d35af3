"""A restart by what runs a server, as `docker restart` and `systemctl restart` do it: the server is not asked, nothing is saved."""

import time
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.connecting import current
from tasks.core.errors import EvenkeelError, NotApplicable
from tasks.core.models import Change, Outcome, OutcomeStatus, Step
from tasks.execution import STATUS_OF_ERROR, OwnershipLostError, execute


@task(name="restart", task_run_name="restart {step.target}", cache_policy=NO_CACHE, persist_result=False)
async def restart(fix_id: str, owner: str, ordinal: int, step: Step) -> Outcome:
    """Journal, restart and journal again. OwnershipLostError where the remediation is no longer the caller's.

    Where the inventory names no runtime, as of what Google runs, the step's own tool does it.
    """
    live = current()
    runtime = getattr(live.tool_client(live.inventory.resource(step.target)), "runtime", None)
    if runtime is None:
        return await execute(fix_id, owner, ordinal, step)
    started_at, began = datetime.now(UTC), time.monotonic()
    if not await live.records.begin_step(fix_id, owner, ordinal, step, started_at):
        raise OwnershipLostError(f"{fix_id}: taken over by another process before {step.tool}")
    change, status, message = None, OutcomeStatus.DONE, ""
    try:
        before = await runtime.status()
        after = await runtime.restart()
        change = Change(before={"state": before.state, "pid": before.pid}, after={"state": after.state, "pid": after.pid})
    except EvenkeelError as error:
        status = OutcomeStatus.FAILED if isinstance(error, NotApplicable) else STATUS_OF_ERROR.get(type(error), OutcomeStatus.FAILED)
        message = live.redactor.text(str(error))
        get_run_logger().warning("%s: %s", step.target, message)
    seconds = time.monotonic() - began
    outcome = Outcome(step=step, status=status, change=change, message=message, started_at=started_at, seconds=seconds)
    await live.records.end_step(fix_id, ordinal, outcome)
    return outcome
