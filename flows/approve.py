"""Wait for a person, holding no process, and go on with the remediation as they answer."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput

from flows.healing import Ending, Remediation, attempt_of, end, heal, perform, under_claim
from tasks.approvals import answered, form
from tasks.authorising import authorise_plan
from tasks.connecting import live
from tasks.context import gather_context
from tasks.core.errors import PlanInvalid
from tasks.core.models import Health, Verdict
from tasks.core.plans import check_plan
from tasks.core.policy import Action
from tasks.core.rendering import approval_markdown


@flow(name="approve", persist_result=True)
async def approve(fix: str, inventory: str = "lab") -> State[Any]:
    """Ask a person about the plan of a remediation. Started by the remediation itself.

    Args:
        fix: Id of the remediation in the records.
        inventory: Name of the inventory.
    """
    async with live(inventory) as opened:
        record = await opened.records.get(fix)
        if record is None or not record.attempts:
            raise ValueError(f"fix: no remediation {fix!r} with a plan is on record")
        if record.verdict is not None:
            return end(record.verdict, f"{fix} has ended meanwhile: {record.message}")
        waiting = [one for one in await opened.records.open_fixes(inventory) if one.fix_id == fix and one.waiting_until is not None]
        now = datetime.now(UTC)
        owner = str(runtime.flow_run.id)
        seconds = int((waiting[0].waiting_until - now).total_seconds()) if waiting and waiting[0].waiting_until else 0
        asked = form(record.attempts[-1].plan, opened.catalog).with_initial_data(
            description=approval_markdown(record, opened.catalog.tools)
        )
        await opened.records.note_run(fix, owner)
        # Raises out of here until a person has answered; then the flow begins anew and gets past it.
        answer = await asuspend_flow_run(wait_for_input=asked, timeout=max(seconds, 1), key="answer")
        resumed = await opened.records.resume(fix, owner, datetime.now(UTC))
        if resumed is None:
            return end(Verdict.ESCALATED, "the answer came too late: the remediation has ended, or its time is over")
        remediation = Remediation(opened, resumed, owner, ordinal=len(await opened.records.journal(fix)))
        return await under_claim(remediation, lambda: _go_on(remediation, answer))


async def _go_on(remediation: Remediation, answer: RunInput) -> Ending:
    attempt = remediation.record.attempts[-1]
    given = answer.model_dump(mode="json")
    comment = remediation.live.redactor.text(given["comment"])
    await remediation.timed(f"answered ({len(remediation.record.attempts)})")
    get_run_logger().info("a person answers %s: %s", given["answer"], comment or "no comment")
    if given["answer"] == "reject":
        rejected = attempt.model_copy(update={"comment": f"rejected by a person: {comment or 'no comment'}"})
        await remediation.note(attempts=(*remediation.record.attempts[:-1], rejected))
        return await heal(remediation)
    context = await gather_context(remediation.record.incident, remediation.record.attempts[:-1])
    if context.observation.health is Health.HEALTHY:
        await remediation.note(after=context.observation)
        return Verdict.NO_ACTION_NEEDED, "healthy again before the answer came; nothing was changed"
    try:
        plan = check_plan(
            answered(attempt.plan, answer).model_dump(),
            tools=remediation.live.catalog.tools,
            context=context,
            rules=remediation.live.inventory.rules,
        )
    except PlanInvalid as error:
        return Verdict.ESCALATED, f"a person is needed: the arguments that were sent don't fit: {error}"
    rulings = await authorise_plan(plan, context, approved=True)
    refused = [(step, ruling) for step, ruling in zip(plan.steps, rulings, strict=True) if ruling.action is not Action.ALLOW]
    if refused:
        step, ruling = refused[0]
        return Verdict.ESCALATED, f"a person is needed: {step.tool} was approved, but {ruling.reason}"
    remediation.last_plan = plan
    accepted = attempt_of(plan, context, rulings).model_copy(update={"comment": f"approved by a person: {comment}".rstrip(": ")})
    await perform(remediation, accepted)
    return await heal(remediation)
