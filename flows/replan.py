"""Ask again what was asked in past incidents, and show what another planner, model, prompt or policy would have done."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.core.replay import Comparison, Planned, SavedIncident, agreement
from tasks.core.replay_rendering import report, steps_text
from tasks.publishing import publish_comparisons
from tasks.replaying.again import PlannerChoice
from tasks.replaying.sources import AT_ONCE, Asked, opened


@flow(name="replan", flow_run_name="Plan again: {planner} {model}", persist_result=False)
async def replan(
    inventory: str = "lab",
    planner: PlannerChoice = "runbook",
    model: str = "",
    fixes: list[str] | None = None,
    newest: int = 20,
    file: str = "",
    rules: dict[str, Any] | None = None,
    prompt: str = "",
    report_file: str = "",
) -> State[Any]:
    """Make the plans of past incidents again. Nothing is probed, and nothing of it is executed.

    Args:
        inventory: Name of the inventory whose incidents they are.
        planner: Who plans now. `as recorded`: the old plans, to see what the policy says of them now; `shadow`: what planned beside them.
        model: For gemini: another model than the inventory's.
        fixes: Ids of the fixes; empty: the newest ones.
        newest: How many of the newest.
        file: Path of a file that `python -m tasks.records export` wrote, in place of the records.
        rules: Fields of the inventory's rules that are otherwise, such as {"autonomy": "approve"}.
        prompt: For gemini: instructions in place of the project's own.
        report_file: Path of a JSON file to write.
    """
    if newest < 1:
        raise ValueError(f"newest: give 1 or more, not {newest}")
    asked = Asked(inventory, planner, model, tuple(fixes or ()), newest, file, rules or {}, prompt)
    async with opened(asked, get_run_logger()) as replay:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(saved: SavedIncident, planned: Planned) -> Comparison:
            async with gate:
                return await compare(f"{saved.fix.incident.resource}, plan {planned.attempt}", partial(replay.again, saved, planned))

        comparisons = await asyncio.gather(*(one(*plan) for plan in replay.plans))
    await publish_comparisons(inventory, comparisons)
    if report_file:
        text = json.dumps(report(comparisons), indent=1)
        await asyncio.to_thread(Path(report_file).write_text, text, encoding="utf-8")
    found = agreement(comparisons)
    return Completed(message=f"{found.same} of {found.plans} plans are the same; nothing of it was executed")


@task(name="plan again", task_run_name="plan again for {of}", cache_policy=NO_CACHE, persist_result=False)
async def compare(of: str, plan_again: Callable[[], Awaitable[Comparison]]) -> Comparison:
    """One plan made again, beside the one that was made."""
    made = await plan_again()
    would = made.said if made.would is None else steps_text(made.would.plan)
    get_run_logger().info("%s: was %s; would be %s (%s)", of, steps_text(made.was.plan), would, made.sameness)
    return made
