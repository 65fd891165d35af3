"""The policy's word on a plan."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.connecting import current
from tasks.core.models import Context, Plan
from tasks.core.policy import Ruling, authorise


@task(name="authorise", task_run_name="authorise {plan.planner}", cache_policy=NO_CACHE, persist_result=False)
async def authorise_plan(plan: Plan, context: Context) -> list[Ruling]:
    """The policy's word on each step, in the steps' order."""
    live = current()
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    # The remediation that asks is itself on record.
    earlier = await live.records.count_since(live.inventory.name, context.resource.name, hour_ago) - 1
    rulings = [
        authorise(
            step,
            live.catalog.tools[step.tool],
            incident=context.incident,
            resource=context.resource,
            rules=live.inventory.rules,
            fixes_last_hour=earlier,
        )
        for step in plan.steps
    ]
    for step, ruling in zip(plan.steps, rulings, strict=True):
        get_run_logger().info("policy: %s %s: %s", ruling.action, step.tool, ruling.reason)
    return rulings
