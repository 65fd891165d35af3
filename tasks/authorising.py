"""The policy's word on a plan, and the switch that stops every change: `prefect variable set evenkeel_stop "reason"`.

`prefect variable set evenkeel_stop "" --overwrite`, or `prefect variable unset evenkeel_stop`, lets changes happen again.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import httpx
from prefect import get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import JsonValue

from blocks.schema import Autonomy, Inventory
from tasks.connecting import current
from tasks.core.models import Context, Plan
from tasks.core.policy import Ruling, Standing, tried_in
from tasks.core.ruling import rule_on
from tasks.records.repository import Records

STOP_VARIABLE = "evenkeel_stop"
STOP_READ_SECONDS = 3.0
STOP_PATIENCE_SECONDS = 60.0
"""Prefect's server is back from a restart by then; meanwhile nothing is changed, and nobody need be called for it."""
STOP_RETRY_SECONDS = 0.5


async def kill_switch() -> str:
    """Why nothing may be changed at the moment; empty: it may. A switch that can't be read for STOP_PATIENCE_SECONDS counts as on."""
    deadline = time.monotonic() + STOP_PATIENCE_SECONDS
    while True:
        try:
            async with asyncio.timeout(STOP_READ_SECONDS), get_client() as client:
                variable = await client.read_variable_by_name(STOP_VARIABLE)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            if time.monotonic() >= deadline:
                return f"the Prefect variable {STOP_VARIABLE} can't be read ({type(error).__name__}), so it counts as set"
            await asyncio.sleep(STOP_RETRY_SECONDS)
        else:
            return "" if variable is None else stop_reason(variable.value)


def stop_reason(value: JsonValue) -> str:
    """The reason that the variable's value gives; empty where it is empty, or false, no or 0."""
    text = str(value).strip() if value else ""
    return "" if text.lower() in {"", "false", "no", "0"} else text


@task(name="authorise", task_run_name="authorise {plan.planner}", cache_policy=NO_CACHE, persist_result=False)
async def authorise_plan(
    plan: Plan, context: Context, *, approved: bool = False, autonomy: Autonomy | None = None, standing: Standing | None = None
) -> list[Ruling]:
    """The policy's word on each step, in the steps' order.

    Args:
        plan: A checked plan.
        context: What it was made from; its observation is what the tools' preconditions are held against.
        approved: Whether a person has agreed to the plan as it is.
        autonomy: Of this run alone, such as `propose` for a dry run; it can only lower what the rules say.
        standing: What was done before, and the switch; None: found out here.

    Raises RecordsUnavailable where what was done before can't be read.
    """
    if not plan.steps:
        return []
    live = current()
    if standing is None:
        standing = await standing_of(live.inventory, live.records, context, autonomy)
    tools, rules = live.catalog.tools, live.inventory.rules
    rulings = [*rule_on(plan, context, tools=tools, rules=rules, standing=standing, approved=approved)]
    for step, ruling in zip(plan.steps, rulings, strict=True):
        get_run_logger().info("policy: %s %s: %s", ruling.action, step.tool, ruling.reason)
    return rulings


async def standing_of(inventory: Inventory, records: Records, context: Context, autonomy: Autonomy | None = None) -> Standing:
    """The switch, and what was done before: by other remediations, as the one that asks is itself on record, and by this one."""
    now = datetime.now(UTC)
    resource, fix_id = context.resource.name, context.incident.id
    cooling_since = now - timedelta(seconds=inventory.rules.cooldown_seconds)
    stopped, (of_resource, overall), steps = await asyncio.gather(
        kill_switch(),
        records.fixes_since(inventory.name, resource, now - timedelta(hours=1), besides=fix_id),
        records.steps_since(inventory.name, resource, cooling_since, besides=fix_id),
    )
    return Standing(
        now=now,
        stopped=stopped,
        autonomy=autonomy,
        fixes_last_hour=of_resource,
        fixes_last_hour_overall=overall,
        # Oldest first, so that the last use of a tool counts. A step that never ended may have changed something.
        seconds_since_last_use={
            entry.step.tool: max((now - entry.begun_at).total_seconds(), 0)
            for entry in steps
            if entry.outcome is None or entry.outcome.changed_something
        },
        tried=tried_in(context.attempts),
    )
