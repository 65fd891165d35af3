"""\"Just restart it\", as tools that only restart do: what healing is compared with in an evaluation, and in a lab alone."""

from prefect import get_run_logger

from blocks.schema import Autonomy
from flows.healing import Ending, Remediation, attempt_of
from flows.reset import require_lab
from tasks.acting import validated
from tasks.authorising import kill_switch
from tasks.context import gather_context
from tasks.core.models import Attempt, Decision, Verdict
from tasks.core.verdicts import conclude, healed
from tasks.planners.restart import RestartPlanner
from tasks.restarting import restart

RESTARTS = 3
"""As Monit is usually configured: after that many restarts in a row it gives up and tells a person."""


async def restart_only(remediation: Remediation) -> Ending:
    """Restart the incident's resource until it is well, three times at most; then a person is called.

    The policy would let hardly any of these restarts through, so it is not asked: NotALabError outside of a lab. Where anything less
    than everything is left to the machine, or everything is stopped, nothing is restarted.
    """
    live, incident = remediation.live, remediation.record.incident
    require_lab(live.inventory)
    resource = live.inventory.resource(incident.resource)
    autonomies = {remediation.autonomy or Autonomy.AUTO, resource.autonomy or live.inventory.rules.autonomy}
    held = await kill_switch() or ("" if autonomies == {Autonomy.AUTO} else f"autonomy is {min(autonomies - {Autonomy.AUTO})}")
    if held:
        return Verdict.ESCALATED, f"a person is needed: nothing is restarted: {held}"
    planner = RestartPlanner(live.catalog)
    get_run_logger().warning("a lab's baseline: the policy is not asked")
    for number in range(RESTARTS):
        context = await gather_context(incident, remediation.record.attempts)
        remediation.last_plan = plan = await planner.plan(context)
        await remediation.note(planner=plan.planner)
        await remediation.timed("planned again" if number else "planned")
        if plan.decision is not Decision.ACT:
            break
        attempt = attempt_of(plan, context, [])
        await remediation.note(attempts=(*remediation.record.attempts, attempt))
        await _performed(remediation, attempt)
        if healed(remediation.record.attempts[-1]):
            break
    return conclude(remediation.record.attempts, remediation.last_plan)


async def _performed(remediation: Remediation, attempt: Attempt) -> None:
    """Restart, and see whether that was all that was needed."""
    earlier, rules = remediation.record.attempts[:-1], remediation.live.inventory.rules
    outcome = await restart(remediation.record.id, remediation.owner, remediation.next_ordinal(), attempt.plan.steps[0])
    await remediation.timed("executed")
    after = await validated(remediation.live, remediation.record, rules.recover_seconds, remediation.timed)
    await remediation.note(attempts=(*earlier, attempt.model_copy(update={"outcomes": (outcome,), "after": after})), after=after)
