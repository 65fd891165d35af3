"""A remediation's process is killed, in each of its stages: nothing is done twice, and a later sweep brings it to an end."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from blocks.schema import Autonomy
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, in_turn
from tasks.core.abandoned import TAKEOVER
from tasks.core.models import OutcomeStatus, Verdict
from tests.flows.cache_fault import inventory_with
from tests.own_parts.remediations import Remediation, until
from tests.own_parts.scene import Held, Hold, Scene, healed, run_of
from tests.scripted_gemini import planned, step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FIXES, STEPS = "evenkeel_fixes", "evenkeel_steps"
HELPS, USELESS = step(args={"mebibytes": 100}), step(args={"mebibytes": 64.1})
FOUND, LITTLE, ENOUGH = 64.0, 64.1, 100.0
SILENT = Answer({}, wait_seconds=math.inf)


@dataclass(frozen=True)
class Stage:
    """Where a remediation is killed, and what must become of it."""

    plan: Answer
    """The model's plan for the one that is killed; the next one plans what helps."""
    said: str
    """Of the record."""
    limits: list[float]
    """All that the cache's server is told, by both."""
    held: Held | None = None
    stops_the_cache: bool = False
    """The server is stopped when it gets there, so that it goes no further when it is let go."""
    is_healed_already: bool = False
    """What it did was enough; there is no second fix."""
    rules: dict[str, Any] | None = None
    autonomy: Autonomy | None = None
    outcomes: tuple[OutcomeStatus, ...] = ()
    """Of the steps of the one that was killed."""


STAGES = {
    "gathering": Stage(
        planned(HELPS), "before it had a plan", [ENOUGH], Held(FIXES, "INSERT", "NEW.closed_at IS NULL"), stops_the_cache=True
    ),
    "planning": Stage(SILENT, "before it had a plan", [ENOUGH]),
    "asking a person": Stage(
        planned(HELPS),
        "before its first step",
        [ENOUGH],
        Held(FIXES, "UPDATE", "NEW.waiting_until IS NOT NULL"),
        autonomy=Autonomy.APPROVE,
    ),
    "between two steps": Stage(
        planned(USELESS, HELPS),
        "between two steps",
        [LITTLE, FOUND, ENOUGH],
        Held(STEPS, "INSERT", "NEW.ordinal = 2"),
        outcomes=(OutcomeStatus.DONE,),
    ),
    "in a step that has not acted": Stage(
        planned(HELPS),
        "during redis_set_maxmemory",
        [ENOUGH],
        Held(STEPS, "INSERT", "NEW.ordinal = 1"),
        stops_the_cache=True,
        outcomes=(OutcomeStatus.OUTCOME_UNKNOWN,),
    ),
    "in a step that has acted": Stage(
        planned(HELPS),
        "during redis_set_maxmemory",
        [ENOUGH],
        Held(STEPS, "UPDATE", "NEW.ordinal = 1"),
        is_healed_already=True,
        outcomes=(OutcomeStatus.OUTCOME_UNKNOWN,),
    ),
    "validating": Stage(
        planned(USELESS),
        "while it was validated",
        [LITTLE, FOUND, ENOUGH],
        rules={"recover_seconds": 300},
        outcomes=(OutcomeStatus.DONE,),
    ),
    "undoing": Stage(
        planned(USELESS),
        "while redis_set_maxmemory took a change back",
        [LITTLE, FOUND, ENOUGH],
        Held(STEPS, "UPDATE", "NEW.ordinal = 2"),
        outcomes=(OutcomeStatus.DONE, OutcomeStatus.OUTCOME_UNKNOWN),
    ),
    "recording": Stage(
        planned(HELPS),
        "when all was done, while that was recorded",
        [ENOUGH],
        Held(FIXES, "UPDATE", "NEW.closed_at IS NOT NULL"),
        is_healed_already=True,
        outcomes=(OutcomeStatus.DONE,),
    ),
}


@pytest.mark.parametrize("name", STAGES)
async def test_a_killed_remediation_is_finished_or_taken_back_and_nothing_is_done_twice(scene: Scene, name: str) -> None:
    stage = STAGES[name]
    async with GeminiServer(in_turn(stage.plan, planned(HELPS)), scene.world.model_port) as model:
        cache = scene.opened.inventory.resource("shop-cache").model_copy(update={"autonomy": stage.autonomy})
        async with inventory_with(cache, **(stage.rules or {})):
            remediation = scene.remediations.next()
            remediation.begin()
            await killed_in(stage, scene, model, remediation)
        (left,) = await scene.records()
        records = await scene.watched(healed)
    assert await scene.limits() == stage.limits
    assert await scene.is_healthy()
    verdicts = [record.verdict for record in records]
    assert verdicts == [Verdict.ABANDONED] if stage.is_healed_already else [Verdict.ABANDONED, Verdict.COMPLETED]
    first = records[0]
    assert first.id == left.id
    assert first.message.startswith(f"its process vanished {stage.said}; shop-cache is {'HEALTHY' if stage.is_healed_already else ''}")
    assert [outcome.status for attempt in first.attempts for outcome in attempt.outcomes] == [*stage.outcomes]
    assert (await run_of(first)).state_name == "Crashed"
    if not stage.is_healed_already:
        attempts = records[1].attempts
        # What the first had changed, and not taken back itself, is taken back first.
        takes_back = FOUND in stage.limits and not any(outcome.undoes for attempt in first.attempts for outcome in attempt.outcomes)
        assert [attempt.plan.planner == TAKEOVER for attempt in attempts] == ([True, False] if takes_back else [False])
        assert (await run_of(records[1])).state_name == "Completed"
    await scene.assert_nothing_is_stuck()


async def killed_in(stage: Stage, scene: Scene, model: GeminiServer, remediation: Remediation) -> None:
    """SIGKILL, as soon as it is in that stage."""
    if stage.held is not None:
        async with stage.held.on(scene.world.lab) as hold:
            await hold.reached()
            if stage.stops_the_cache:
                await killed_while_the_cache_is_stopped(stage, scene, hold, remediation)
            else:
                remediation.kill()
    else:
        await until("the stage", lambda: has_come_to(scene, model, stage))
        remediation.kill()


async def has_come_to(scene: Scene, model: GeminiServer, stage: Stage) -> bool | None:
    """Whether the model is asked, or what was done is validated."""
    if stage.plan is SILENT:
        return True if model.requests else None
    found = await scene.opened.records.open_fixes("lab")
    return True if found and found[0].stage == "executed" else None


async def killed_while_the_cache_is_stopped(stage: Stage, scene: Scene, hold: Hold, remediation: Remediation) -> None:
    """Let it go on to where it waits for the stopped server, and kill it there."""
    cache = scene.cache_process()
    cache.suspend()
    try:
        await hold.let_go()

        async def is_on_record() -> bool | None:
            found = await scene.opened.records.open_fixes("lab")
            if not found or stage.held is None or stage.held.table == FIXES:
                return True if found else None
            return True if await scene.opened.records.interrupted_steps(found[0].fix_id) else None

        await until("the change on record", is_on_record)
        remediation.kill()
    finally:
        cache.resume()
