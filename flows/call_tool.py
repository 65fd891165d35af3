"""A tool that an MCP client calls, as a flow: authorised anew, under the lock, validated, taken back where it did not help."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, runtime, tags
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_UI_URL
from pydantic import JsonValue

from blocks.schema import Autonomy
from flows.healing import Ending, Remediation, attempt_of, end, perform, under_claim
from tasks.authorising import authorise_plan
from tasks.connecting import live
from tasks.context import gather_context
from tasks.core.models import Decision, FixRecord, Health, Plan, Step, Verdict
from tasks.core.plans import check_plan
from tasks.core.policy import Action
from tasks.core.verdicts import conclude
from tasks.mcp_calls import Answer, Call, Called, StepTaken
from tasks.mcp_tools import considered
from tasks.records.fixes import OVER_MCP

REFUSED, DECLINED = "Refused", "Declined"


@flow(name="call-tool", flow_run_name="{client}: {tool} on {resource}", persist_result=False)
async def call_tool(
    tool: str,
    resource: str,
    args: dict[str, JsonValue],
    why: str,
    client: str,
    fix: str,
    inventory: str = "lab",
    answer: Answer = "not asked",
    comment: str = "",
    autonomy: Autonomy | None = None,
) -> State[Any]:
    """Carry out one tool call of an MCP client, as far as the policy allows it.

    Args:
        tool: Name of the tool.
        resource: Name of the resource.
        args: The tool's arguments.
        why: The client's reason.
        client: What the client calls itself.
        fix: Id of the fix that is put on record.
        inventory: Name of the inventory.
        answer: A person's, where the policy asked for one.
        comment: What the person said.
        autonomy: How far it may go. It can only make more cautious what the inventory allows.
    """
    step = Step(tool=tool, target=resource, args=args, why=why)
    if answer == "reject":
        return _undone(DECLINED, f"a person declined {tool} on {resource}: {comment or 'no comment'}; nothing was done")
    async with live(inventory) as opened:
        # What is refused is no fix: it claims nothing, and counts for no cap.
        ruling, incident = await considered(opened, step, autonomy, approved=answer == "approve")
        get_run_logger().info("policy: %s %s: %s", ruling.action, tool, ruling.reason)
        if ruling.action is not Action.ALLOW:
            return _undone(REFUSED, _refusal(ruling.action, tool, ruling.reason))
        incident = incident.model_copy(update={"id": fix})
        owner = str(runtime.flow_run.id)
        record = FixRecord(
            id=fix,
            incident=incident,
            planner=f"{OVER_MCP}{client}",
            flow_run_id=owner,
            before=incident.observation,
            opened_at=incident.opened_at,
        )
        if not await opened.records.open_fix(record, owner, datetime.now(UTC)):
            return end(Verdict.NO_ACTION_NEEDED, f"another remediation of {resource} is under way; this one did nothing")
        remediation = Remediation(opened, record, owner, autonomy=autonomy)
        return await under_claim(remediation, lambda: _carry_out(remediation, step, answer, comment))


async def _carry_out(remediation: Remediation, step: Step, answer: Answer, comment: str) -> Ending:
    record, opened = remediation.record, remediation.live
    context = await gather_context(record.incident, ())
    if context.observation.health is Health.HEALTHY:
        await remediation.note(after=context.observation)
        return Verdict.NO_ACTION_NEEDED, "healthy again before it was begun; nothing was changed"
    planned = Plan(planner=record.planner, decision=Decision.ACT, diagnosis=context.observation.summary, reasoning=step.why, steps=(step,))
    plan = check_plan(planned.model_dump(), tools=opened.catalog.tools, context=context, rules=opened.inventory.rules)
    rulings = await authorise_plan(plan, context, approved=answer == "approve", autonomy=remediation.autonomy)
    said = f"approved by a person over MCP: {comment}".rstrip(": ") if answer == "approve" else ""
    attempt = attempt_of(plan, context, rulings).model_copy(update={"comment": said})
    await remediation.note(attempts=(attempt,))
    if rulings[0].action is not Action.ALLOW:
        return Verdict.NO_ACTION_NEEDED, _refusal(rulings[0].action, step.tool, rulings[0].reason)
    await perform(remediation, attempt)
    return conclude(remediation.record.attempts, plan)


def _refusal(action: Action, tool: str, reason: str) -> str:
    if action is Action.ASK:
        return f"{tool} needs a person's approval, and none was given: {reason}; nothing was done, make the call again"
    return f"{tool} is refused by the policy: {reason}; nothing was done"


def _undone(name: str, message: str) -> State[Any]:
    return State(type=StateType.COMPLETED, name=name, message=message)


async def carry_out(inventory: str, autonomy: Autonomy | None, call: Call) -> Called:
    """Run a call as a flow, and tell what came of it."""
    with tags("evenkeel", "mcp", call.step.target):
        state: State[Any] = await call_tool(
            call.step.tool,
            call.step.target,
            call.step.args,
            call.step.why,
            call.client,
            call.fix,
            inventory,
            call.answer,
            call.comment,
            autonomy,
            return_state=True,
        )
    async with live(inventory) as opened:
        record = await opened.records.get(call.fix)
        message = opened.redactor.text(state.message or "")
    outcomes = [] if record is None else [outcome for attempt in record.attempts for outcome in attempt.outcomes]
    last = None if record is None else record.after or record.before
    return Called(
        verdict=str(state.name),
        message=message,
        fix=None if record is None else record.id,
        flow_run=f"{PREFECT_UI_URL.value() or ''}/v2/runs/flow-run/{state.state_details.flow_run_id}",
        health=None if last is None else last.health,
        summary="" if last is None else last.summary,
        steps=tuple(
            StepTaken(
                tool=outcome.step.tool,
                status=outcome.status,
                undoes=outcome.undoes,
                before=outcome.change.before if outcome.change else {},
                after=outcome.change.after if outcome.change else {},
                message=outcome.message,
            )
            for outcome in outcomes
        ),
    )
