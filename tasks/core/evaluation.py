"""What an evaluation consists of, and the statistics of its trials. Every figure carries the number of trials that it rests on."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from blocks.model import Model
from tasks.core.declare import Ending
from tasks.core.scoring import INCONCLUSIVE, Mistake, ScenarioResult

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
READS_NOTHING = "restart"
"""The planner that no text can talk into anything."""
COLLATERAL = {Mistake.DATA, Mistake.NEIGHBOUR, Mistake.FALSE_ACTION}
Stage = Literal["detection", "analysis", "tools", "validation", "trial"]
STAGE_OF: dict[Mistake, Stage] = {
    Mistake.NOT_DETECTED: "detection",
    Mistake.FALSE_ALARM: "analysis",
    Mistake.MISSED_ESCALATION: "analysis",
    Mistake.FALSE_ACTION: "analysis",
    Mistake.FORBIDDEN_TOOL: "tools",
    Mistake.NEIGHBOUR: "tools",
    Mistake.DATA: "tools",
    Mistake.NOT_HEALED: "validation",
    Mistake.RELAPSED: "validation",
    Mistake.UNHEALED: "validation",
    Mistake.INCONCLUSIVE: "trial",
}
STAGES: tuple[Stage, ...] = ("trial", "detection", "validation", "tools", "analysis")
"""In the order in which a failure with several mistakes is counted: that it was not healed comes before how it was tried."""


class Case(Model):
    """One trial that is to be made."""

    scenario: str
    planner: str
    repeat: int = Field(ge=1)
    neighbours: Literal["well", "swinging"] = "well"

    @property
    def key(self) -> str:
        """What tells it from all others of an evaluation."""
        return f"{self.scenario}/{self.planner}/{self.repeat}"


class Trial(Model):
    """A case and what came of it."""

    case: Case
    result: ScenarioResult
    ended_at: datetime
    seconds: float = Field(ge=0, description="How long the trial took with all that surrounds it.")
    conditions: str = Field(description="Under which it was made: trials under different ones are not comparable.")

    @property
    def succeeded(self) -> bool:
        """Whether it ended as expected and without any harm; what is inconclusive did not."""
        return self.result.as_expected and not self.result.problems

    @property
    def recovery_seconds(self) -> float | None:
        """From the start of the injection until it was healthy for good; None: never, or not asked."""
        is_well = self.result.outcome == Ending.HEALED and not {Mistake.RELAPSED, Mistake.UNHEALED} & set(self.result.mistakes)
        return self.result.healthy_seconds if is_well else None

    @property
    def failed_in(self) -> Stage | None:
        """The stage that it failed in; None: it succeeded."""
        if self.succeeded:
            return None
        stages = {STAGE_OF[mistake] for mistake in self.result.mistakes}
        if self.result.outcome == Ending.ESCALATED and not self.result.as_expected:  # safe, and no success
            stages.add("validation" if self.result.steps else "analysis")
        return next(stage for stage in STAGES if stage in stages)


class Share(Model):
    """How often something was so, with its 95 % Wilson interval."""

    hits: int
    n: int
    share: float | None = Field(description="None: there was no occasion.")
    low: float | None = None
    high: float | None = None


class Spread(Model):
    """How a figure is spread over the trials that have it."""

    n: int
    median: float | None = None
    p95: float | None = Field(None, description="By nearest rank.")
    most: float | None = None


def cases_of(scenarios: Sequence[str], planners: Sequence[str], repeats: int, *, swinging: bool = True) -> list[Case]:
    """Every case, no scenario twice in a row. In every second repeat the neighbours swing just under their thresholds."""
    return [
        Case(scenario=scenario, planner=planner, repeat=repeat, neighbours="swinging" if swinging and repeat % 2 == 0 else "well")
        for repeat in range(1, repeats + 1)
        for planner in planners
        for scenario in scenarios
    ]


def part_of(cases: Sequence[Case], part: int, parts: int) -> list[Case]:
    """The cases of one of several labs: all planners meet a repeat of a scenario in the same lab, and each lab gets every scenario."""
    scenarios = list(dict.fromkeys(case.scenario for case in cases))
    return [case for case in cases if (scenarios.index(case.scenario) + case.repeat) % parts == part - 1]


def share_of(hits: int, n: int) -> Share:
    """The share with its Wilson interval; ValueError where there are more hits than occasions."""
    if not 0 <= hits <= n:
        raise ValueError(f"hits: {hits} of {n}")
    if not n:
        return Share(hits=0, n=0, share=None)
    low, high = wilson(hits, n)
    return Share(hits=hits, n=n, share=hits / n, low=low, high=high)


def wilson(hits: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction."""
    share, square = hits / n, z * z / n
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_hat(counts: Iterable[tuple[int, int]], k: int) -> float | None:
    """pass^k: the chance that k trials of a scenario all succeed, over scenarios (Yao et al. 2024, tau-bench).

    `counts` holds successes and trials of each scenario; those with fewer than k trials say nothing. None: no scenario has k.
    """
    chances = [math.comb(successes, k) / math.comb(n, k) for successes, n in counts if n >= k]
    return sum(chances) / len(chances) if chances else None


def spread_of(values: Iterable[float | None]) -> Spread:
    """Median and 95th percentile of the values that there are."""
    found = sorted(value for value in values if value is not None)
    if not found:
        return Spread(n=0)
    middle = len(found) // 2
    median = found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2
    return Spread(n=len(found), median=round(median, 3), p95=round(found[math.ceil(0.95 * len(found)) - 1], 3), most=round(found[-1], 3))


def when(trials: Sequence[Trial], hit: Iterable[Trial]) -> Share:
    """How many of the trials are among the hits."""
    return share_of(len(list(hit)), len(trials))


def is_inconclusive(trial: Trial) -> bool:
    """Whether nothing could be concluded, which is a failure."""
    return trial.result.outcome == INCONCLUSIVE
