"""An evaluation whose trials are decided by a rule, to be killed: `python -m tests.tasks.evaluation_process DIRECTORY`."""

import asyncio
import sys
import zlib
from pathlib import Path

from tasks.core.evaluation import Case, Trial, cases_of
from tasks.core.evaluation_summary import Settings
from tasks.core.scoring import Mistake, ScenarioResult
from tasks.evaluating import Results, conditions_of, run_cases

SETTINGS = Settings(
    scenarios=("full", "slot", "calm"), planners=("runbook", "restart"), repeats=4, timeout_seconds=60, sustain_seconds=5, command="test"
)
CASES = cases_of(SETTINGS.scenarios, SETTINGS.planners, SETTINGS.repeats)
CONDITIONS = conditions_of(SETTINGS, "unit")
CASE_SECONDS = 0.2


def decided(case: Case) -> ScenarioResult:
    """The same result for the same case, always."""
    luck = zlib.crc32(case.key.encode()) % 4
    outcome = ("healed", "escalated", "failed", "healed")[luck]
    return ScenarioResult(
        scenario=case.scenario,
        planner=case.planner,
        expected="healed",
        outcome=outcome,
        as_expected=outcome == "healed",
        detected_seconds=1,
        planned_seconds=2,
        healthy_seconds=3 + luck if outcome == "healed" else None,
        requests=100,
        requests_failed=luck,
        data_unharmed=True,
        mistakes=(Mistake.NOT_HEALED,) if outcome == "failed" else (),
        problems=("it ended as failed",) if outcome == "failed" else (),
    )


async def evaluate(directory: Path, seconds: float) -> None:
    """Try every case that is left, each for so long."""

    async def try_one(case: Case) -> ScenarioResult:
        await asyncio.sleep(seconds)
        return decided(case)

    async def told(_done: dict[str, Trial]) -> None:
        pass

    await run_cases(CASES, Results(directory), CONDITIONS, try_one, told)


if __name__ == "__main__":
    asyncio.run(evaluate(Path(sys.argv[1]), CASE_SECONDS))
