"""A second planner, beside the one that acts: what it would do is ruled on, recorded and shown, and never executed.

Nothing waits for it, and whatever goes wrong with it ends here. It reads nothing from servers: it plans from what the other one was given.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import AsyncClientContext

from blocks.gemini import GeminiBlock
from blocks.schema import Autonomy
from tasks.authorising import standing_of
from tasks.connecting import Live
from tasks.core.errors import EvenkeelError
from tasks.core.models import Context, Plan, Usage
from tasks.core.replay import Ruled, ShadowAnswer
from tasks.core.replay_rendering import shadow_text
from tasks.core.ruling import rule_on
from tasks.planners.fallback import Logger, MeteredModel
from tasks.planners.gemini import GeminiPlanner
from tasks.planners.runbooks import RunbookPlanner
from tasks.publishing import publish_shadow
from tasks.redacting import redacted_plan
from tasks.remembering import quotable

RECORD_SECONDS = 10.0
"""For the rulings, the records and the artifact, once there is a plan or none."""
Tell = Callable[[Ruled], None]


def begin_shadow(live: Live, context: Context, autonomy: Autonomy | None) -> Tell:
    """Let the shadow plan too, where the inventory has one. What is returned is to be told the plan of the planner that acts."""
    acted: asyncio.Future[Ruled] = asyncio.get_running_loop().create_future()
    if live.gemini is not None and live.gemini.settings.shadow is not None:
        live.in_background(_shadowed(live, live.gemini, context, autonomy, acted))
    return acted.set_result


async def _shadowed(live: Live, block: GeminiBlock, context: Context, autonomy: Autonomy | None, acted: asyncio.Future[Ruled]) -> None:
    async def plan() -> None:
        logger, settings = get_run_logger(), block.settings.of_the_shadow
        began = time.monotonic()
        answer = await _answer(live, block, context, autonomy, logger)
        answer = answer.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
        logger.info("in the shadow: %s", shadow_text(answer))
        async with asyncio.timeout(RECORD_SECONDS):
            await live.records.save_shadow(context.incident.id, len(context.attempts) + 1, answer)
        # The other may still be planning; without its plan the shadow's is shown alone.
        done, _ = await asyncio.wait([acted], timeout=settings.total_seconds)
        async with asyncio.timeout(RECORD_SECONDS):
            await publish_shadow(context.resource.name, acted.result() if done else None, answer)

    # The flow that began it may have ended meanwhile, and has then closed its client of Prefect's API: the task opens one of its own.
    AsyncClientContext.__var__.set(None)  # type: ignore[arg-type]
    await shadow_plan(context.resource.name, plan)


@task(name="shadow", task_run_name="plan for {resource} in the shadow", cache_policy=NO_CACHE, persist_result=False)
async def shadow_plan(resource: str, plan: Callable[[], Awaitable[None]]) -> None:
    """What a planner in the shadow would do about an incident of the resource."""
    await plan()


async def _answer(live: Live, block: GeminiBlock, context: Context, autonomy: Autonomy | None, logger: Logger) -> ShadowAnswer:
    plan, said, used, name = await _asked(live, block, context, logger)
    said = live.redactor.text(said)
    if plan is None:
        return ShadowAnswer(planner=name, said=said, usage=used)
    plan = redacted_plan(live.redactor, plan)
    try:
        async with asyncio.timeout(RECORD_SECONDS):
            standing = await standing_of(live.inventory, live.records, context, autonomy)
    except (EvenkeelError, TimeoutError) as error:
        return ShadowAnswer(
            planner=name, said=f"the policy was not asked: {live.redactor.text(str(error)) or 'no answer in time'}", usage=used
        )
    rulings = rule_on(plan, context, tools=live.catalog.tools, rules=live.inventory.rules, standing=standing)
    return ShadowAnswer(planner=plan.planner, answer=Ruled(plan=plan, rulings=quotable(live, rulings)), usage=used)


async def _asked(live: Live, block: GeminiBlock, context: Context, logger: Logger) -> tuple[Plan | None, str, Usage, str]:
    rules, shadow = live.inventory.rules, block.settings.shadow
    if shadow is not None and shadow.planner == "runbook":
        try:
            return await RunbookPlanner(live.catalog, rules).plan(context), "", Usage(), "runbook"
        except EvenkeelError as error:
            return None, str(error), Usage(), "runbook"
    settings = block.settings.of_the_shadow
    model = MeteredModel(
        settings=settings,
        open_model=lambda: GeminiPlanner(live.gemini_client(block, settings), live.catalog, rules, read=None),
        records=live.records,
        account=account_of(live.inventory.name),
        logger=logger,
    )
    session = model.session()
    plan, said = await model.ask(context, session)
    return plan, said, session.usage, f"gemini:{settings.model}"


def account_of(inventory: str) -> str:
    """Under which name the shadow's use and failures are kept, apart from those of the planner that acts."""
    return f"gemini/{inventory}/shadow"
