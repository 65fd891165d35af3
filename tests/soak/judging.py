"""Whether what was measured over a soak stays flat and comes back to where it began, and what ended right. Pure; times in seconds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tasks.core.trends import Point, slope

WARM_UP_SHARE = 0.1
"""Of a soak's time: libraries are loaded, pools and caches filled."""
MIN_POINTS = 6
LEVEL_POINTS = 3
"""Measurements at each end whose median is the level there."""


@dataclass(frozen=True)
class Allowance:
    """By how much something may grow over a soak: a share of where it began, and so much besides."""

    share: float
    besides: float

    def of(self, level: float) -> float:
        """In the unit of the level."""
        return self.share * level + self.besides


MEMORY = Allowance(0.15, 20)
"""In MiB."""
ROWS = Allowance(0.3, 30)
"""A table that nothing is deleted from grows several times over once the first rows have reached their age."""
STORED = Allowance(0.3, 16)
"""In MiB. PostgreSQL uses the place of deleted rows again, and gives it back only where it lies at a file's end."""
COUNTS = Allowance(0.15, 6)
"""Processes, descriptors, connections: pools breathe."""


@dataclass(frozen=True)
class Flatness:
    """How a figure went on from a time on: its level at both ends, and its growth by the line of Theil and Sen between them."""

    name: str
    unit: str
    points: int
    first: float
    last: float
    growth: float
    allowed: float

    @property
    def is_judged(self) -> bool:
        """Whether there is enough of it to tell a trend from chance."""
        return self.points >= MIN_POINTS

    @property
    def problem(self) -> str:
        """Empty: it stayed as flat as it has to."""
        if not self.is_judged or self.growth <= self.allowed:
            return ""
        return f"{self.name} grew by {self.growth:.0f} {self.unit} from {self.first:.0f} to {self.last:.0f}; allowed are {self.allowed:.0f}"


def flatness(name: str, unit: str, points: Sequence[Point], since_seconds: float, allowance: Allowance) -> Flatness:
    """What became of a figure from `since_seconds` on; `points` hold seconds and values, and what could not be measured is left out."""
    kept = [point for point in points if point[0] >= since_seconds]
    if not kept:
        return Flatness(name, unit, 0, 0, 0, 0, allowance.of(0))
    first, last = (median(value for _, value in part) for part in (kept[:LEVEL_POINTS], kept[-LEVEL_POINTS:]))
    growth = slope(kept) * (kept[-1][0] - kept[0][0])
    return Flatness(name, unit, len(kept), first, last, growth, allowance.of(first))


def not_back(before: Mapping[str, float], after: Mapping[str, float], tolerated: Mapping[str, float], otherwise: float) -> list[str]:
    """Counts that are higher at the end than at the beginning; `tolerated`: by how much each may be, `otherwise` what is not named."""
    return [
        f"{name}: {after[name]:.0f} at the end, {before.get(name, 0):.0f} at the beginning"
        for name in sorted(after)
        if after[name] > before.get(name, 0) + tolerated.get(name, otherwise)
    ]


def left_over(overdue: Mapping[str, float], rows: Mapping[str, float]) -> list[str]:
    """Tables in which rows stay that are long past their age: more than 2 % of them, and more than a handful."""
    return [
        f"{table}: {count:.0f} of {rows.get(table, 0):.0f} rows are past their age"
        for table, count in sorted(overdue.items())
        if count > max(10.0, 0.02 * rows.get(table, 0))
    ]


@dataclass(frozen=True)
class OfScenario:
    """How all trials of one scenario ended."""

    scenario: str
    expected: str
    n: int
    right: int
    called: int
    """Those of them that called a person where it could have been healed, which is safe."""
    again: int
    """Those whose fault did not come about at first."""
    median_seconds: float | None
    p95_seconds: float | None

    @property
    def wrong(self) -> int:
        """The others."""
        return self.n - self.right


@dataclass(frozen=True)
class Ended:
    """How one trial ended, as far as it is counted."""

    scenario: str
    expected: str
    outcome: str
    problems: tuple[str, ...]
    healthy_seconds: float | None
    is_again: bool


def by_scenario(trials: Iterable[Ended]) -> list[OfScenario]:
    """A row a scenario, by name."""
    grouped: dict[str, list[Ended]] = {}
    for one in trials:
        grouped.setdefault(one.scenario, []).append(one)
    return [_of_scenario(name, grouped[name]) for name in sorted(grouped)]


def _of_scenario(name: str, trials: Sequence[Ended]) -> OfScenario:
    times = sorted(one.healthy_seconds for one in trials if one.outcome == "healed" and one.healthy_seconds is not None)
    right = [one for one in trials if not one.problems]
    return OfScenario(
        scenario=name,
        expected=trials[0].expected,
        n=len(trials),
        right=len(right),
        called=sum(one.outcome == "escalated" and one.expected != "escalated" for one in right),
        again=sum(one.is_again for one in trials),
        median_seconds=median(times) if times else None,
        p95_seconds=percentile(times, 95),
    )


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The smallest of the values that so many percent are not above (nearest rank); None of none."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] if ordered else None


def wrong_endings(trials: Iterable[Ended]) -> list[str]:
    """What went wrong with each trial that did not end right."""
    return [f"{one.scenario} ended as {one.outcome}: {'; '.join(one.problems)}" for one in trials if one.problems]
