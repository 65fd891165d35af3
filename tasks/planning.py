"""Asking a planner: Gemini where the inventory has it, else the runbooks."""

import asyncio

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import JsonValue

from tasks.charge import RUNBOOK, planner_in_charge
from tasks.connecting import Live, current
from tasks.core.errors import EvenkeelError
from tasks.core.models import Context, Plan, Step
from tasks.core.rendering import usage_text
from tasks.execution import call_tool
from tasks.planners.fallback import FallbackPlanner, Logger, MeteredModel
from tasks.planners.gemini import GeminiPlanner
from tasks.planners.gemini_client import load_sdk
from tasks.planners.protocol import Planner
from tasks.planners.runbooks import RunbookPlanner
from tasks.redacting import redacted_error, redacted_plan
from tasks.tracing import describe


@task(name="plan", task_run_name="plan for {context.incident.resource}", cache_policy=NO_CACHE, persist_result=False)
async def make_plan(context: Context) -> Plan:
    """A checked plan; which planner made it, how it came about and what it used stand in the plan."""
    live, logger = current(), get_run_logger()
    plan = redacted_plan(live.redactor, await (await planner_now(live, logger)).plan(context))
    describe({"evenkeel.planner": plan.planner, "evenkeel.decision": plan.decision.value, "evenkeel.dollars": plan.usage.dollars})
    logger.info("%s plans: %s (%s)", plan.planner, plan.decision, plan.diagnosis)
    for step in plan.steps:
        logger.info("step: %s %s, because %s", step.tool, step.args, step.why)
    for note in plan.notes:
        logger.info("note: %s", note)
    if used := usage_text(plan.usage):
        logger.info("used: %s", used)
    return plan


async def planner_now(live: Live, logger: Logger) -> Planner:
    """The inventory's planner, or the one that an evaluation has put in charge of a lab."""
    in_charge = await planner_in_charge(live)
    if in_charge == RUNBOOK:
        return RunbookPlanner(live.catalog, live.inventory.rules)
    return planner_of(live, logger, in_charge=in_charge is not None)


def planner_of(live: Live, logger: Logger, *, in_charge: bool = False) -> Planner:
    """The planner of an inventory; `in_charge` lets Gemini act where it plans in the shadow otherwise."""
    runbook = RunbookPlanner(live.catalog, live.inventory.rules)
    block = live.gemini
    if block is None or not (block.settings.acts or in_charge):
        return runbook

    async def read(step: Step) -> dict[str, JsonValue]:
        # What is read goes to the model and into the plan's notes.
        try:
            change = await call_tool(live, step)
        except EvenkeelError as error:
            masked = redacted_error(live.redactor, error)
            if masked is None:
                raise
            raise masked from None
        return live.redactor.value(dict(change.after))

    model = MeteredModel(
        settings=block.settings,
        open_model=lambda: GeminiPlanner(live.gemini_client(block), live.catalog, live.inventory.rules, read),
        records=live.records,
        account=f"gemini/{live.inventory.name}",
        logger=logger,
    )
    return FallbackPlanner(model, runbook, logger)


async def prepare_planner(live: Live) -> None:
    """Load what planning needs, in a thread, so that the first incident of a process need not wait for it."""
    if live.gemini is not None:
        await asyncio.to_thread(load_sdk)
