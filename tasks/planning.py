"""Asking a planner."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.connecting import current
from tasks.core.models import Context, Plan
from tasks.planners.runbooks import RunbookPlanner


@task(name="plan", task_run_name="plan for {context.incident.resource}", cache_policy=NO_CACHE, persist_result=False)
async def make_plan(context: Context) -> Plan:
    """A checked plan; which planner made it stands in the plan."""
    live = current()
    plan = await RunbookPlanner(live.catalog, live.inventory.rules).plan(context)
    get_run_logger().info("%s plans: %s (%s)", plan.planner, plan.decision, plan.diagnosis)
    for step in plan.steps:
        get_run_logger().info("step: %s %s, because %s", step.tool, step.args, step.why)
    return plan
