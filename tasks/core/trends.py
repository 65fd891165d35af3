"""When a figure will cross its threshold at the pace of the last readings, told only where the rise is beyond doubt.

A line is fitted by Theil and Sen (the median of the slopes of all pairs of readings), which a third of outliers does not move. What
only looks like a rise is left alone: a step to a new level, a cache that fills and evicts, a swing of the traffic, a rise that ends
below the threshold. No I/O and no clock: times come with the readings, in seconds since 1970.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import median

from blocks.schema import Resource
from tasks.core.models import Finding, Forecast, Health, Observation
from tasks.core.verdicts import observe

Point = tuple[float, float]
"""Time in seconds and value."""
Points = tuple[Point, ...]
History = dict[str, Points]
"""Value of a probe's reading -> its last readings, oldest first."""

POINTS_A_WINDOW = 24
WINDOWS_KEPT = 3
"""A rise is looked for in the last window, which is as long as the horizon; the ones before tell what is usual."""
WARM_UP = 1.8
"""Windows that have to be known before anything is predicted: what comes and goes within them is then known to do so."""
MIN_POINTS = 10
MIN_SPAN = 0.8
"""Share of the window that the readings have to span."""
RISING_PAIRS = 0.88
"""Share of the pairs of readings that have to rise; two steps reach 0.83, noise 0.5."""
NEW_SHARE = 0.15
"""Share of the rise that has to lie above all that was seen before the last third of it."""
MOST_OF_RISE = 0.4
"""Share of the rise that one sixth of the window may bring; a step brings all of it, each of two steps half."""
LATEST = 3
"""Readings at whose median the level is taken, and at each of which the rise must already have been found."""


def extended(points: Points, point: Point, horizon_seconds: float) -> Points:
    """The history with one more reading, thinned to what a window needs; a reading too soon after the last one is left out."""
    spacing = horizon_seconds / POINTS_A_WINDOW
    if points and point[0] - points[-1][0] < spacing * 0.99:
        return points
    oldest = point[0] - WINDOWS_KEPT * horizon_seconds
    return (*(kept for kept in points if kept[0] >= oldest), point)


def joined(before: History, own: History) -> History:
    """Both histories as one."""
    return {metric: tuple(sorted({*before.get(metric, ()), *own.get(metric, ())})) for metric in {**before, **own}}


def slope(points: Sequence[Point]) -> float:
    """The median of the slopes of all pairs, in units a second; 0 where no two readings differ in time."""
    return median(_slopes(points) or (0.0,))


def forecast(points: Points, threshold: float, horizon_seconds: float) -> float | None:
    """The pace in units a second of a rise that crosses the threshold within the horizon; None where there is none to be sure of.

    It has to be found at each of the last three readings: one more reading can undo what chance brought about.
    """
    pace: float | None = None
    for left_out in range(LATEST):
        pace_then = _pace(points[: len(points) - left_out], threshold, horizon_seconds)
        if pace_then is None:
            return None
        pace = pace_then if pace is None else min(pace, pace_then)
    return pace


def _pace(points: Points, threshold: float, horizon_seconds: float) -> float | None:
    """The pace at the last of these readings."""
    if len(points) < MIN_POINTS or horizon_seconds <= 0 or points[-1][0] - points[0][0] < WARM_UP * horizon_seconds:
        return None
    begin = points[-1][0] - horizon_seconds
    first = next(position for position, point in enumerate(points) if point[0] >= begin)
    window = points[first:]
    span = window[-1][0] - window[0][0]
    if len(window) < MIN_POINTS or span < MIN_SPAN * horizon_seconds:
        return None
    level = median(value for _, value in window[-LATEST:])
    start = median(value for _, value in window[:LATEST])
    # Most resources leave here: what is flat or falls, and what would cross only after the horizon.
    if level >= threshold or level <= start or (threshold - level) * span > 2 * (level - start) * horizon_seconds:
        return None
    if not _is_news(points[: -(len(window) // 3)], start, level) or not _rises_throughout(window):
        return None
    half = len(window) // 2
    earlier, latest = slope(window[: half + 1]), slope(window[half:])
    pace = min(slope(window), latest)
    ahead = threshold - level
    if pace <= 0 or ahead > pace * horizon_seconds or _ends_below(earlier, latest, span / 2, ahead):
        return None
    return pace


def _slopes(points: Sequence[Point]) -> list[float]:
    return [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1]


def _is_news(earlier: Points, start: float, level: float) -> bool:
    """Whether it is higher than it has been lately, single outliers aside; what came back by itself before will do so again."""
    values = [value for _, value in earlier]
    highest = max((median(values[place : place + 3]) for place in range(len(values) - 2)), default=start)
    return level - highest >= NEW_SHARE * (level - start)


def _rises_throughout(window: Points) -> bool:
    slopes = _slopes(window)
    if not slopes or sum(one > 0 for one in slopes) < RISING_PAIRS * len(slopes):
        return False
    size = len(window) / 6
    levels = [median(value for _, value in window[round(part * size) : round((part + 1) * size)]) for part in range(6)]
    steps = [after - before for before, after in pairwise(levels)]
    return max(steps) <= MOST_OF_RISE * (levels[-1] - levels[0])


def _ends_below(earlier: float, latest: float, half_seconds: float, ahead: float) -> bool:
    """Whether a rise that slows down, followed on at the rate at which it does, ends below the threshold."""
    if not 0 < latest < earlier:
        return False
    kept = latest / earlier
    return latest * half_seconds * kept / (1 - kept) < ahead


def with_predictions(observation: Observation, trends: Mapping[str, str], history: Mapping[str, Points], resource: Resource) -> Observation:
    """The observation with a finding for every figure that is going to cross its threshold.

    Args:
        observation: What was measured.
        trends: Value of the reading, which is also the name of its threshold -> symptom, as the probe declares them.
        history: The last readings of these values.
        resource: Whose thresholds hold.
    """
    horizon = resource.thresholds.horizon_seconds
    paces = {metric: forecast(history.get(metric, ()), getattr(resource.thresholds, metric), horizon) for metric in trends}
    rising = [(trends[metric], Forecast(metric=metric, per_second=pace)) for metric, pace in paces.items() if pace is not None]
    return _with_findings(observation, rising, resource)


def still_predicted(observation: Observation, expected: Sequence[Finding], resource: Resource) -> Observation:
    """A fresh observation, with the predictions among the findings of before that it still bears out at the same pace."""
    return _with_findings(observation, [(one.symptom, one.forecast) for one in expected if one.forecast is not None], resource)


def _with_findings(observation: Observation, rising: Sequence[tuple[str, Forecast]], resource: Resource) -> Observation:
    if observation.health in {Health.FAILED, Health.UNKNOWN}:
        return observation
    measured = {finding.symptom for finding in observation.findings}
    findings = [_finding(observation, symptom, one, resource) for symptom, one in rising if symptom not in measured]
    predicted = [finding for finding in findings if finding is not None]
    if not predicted:
        return observation
    both = (*observation.findings, *predicted)
    return observe(resource, observation.reading, both, taken_at=observation.taken_at, seconds=observation.seconds)


def _finding(observation: Observation, symptom: str, one: Forecast, resource: Resource) -> Finding | None:
    value, threshold = figure(observation, one.metric), getattr(resource.thresholds, one.metric)
    if value is None or not 0 < threshold - value <= one.per_second * resource.thresholds.horizon_seconds:
        return None
    seconds = (threshold - value) / one.per_second
    in_time = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    pace = f"{one.metric} is {value:.1f} and rises by {one.per_second * 60:.2g} a minute"
    summary = f"predicted: {pace}, which reaches the threshold of {threshold:g} in {in_time}"
    return Finding(symptom=symptom, health=Health.DEGRADED, summary=summary, forecast=one)


def figure(observation: Observation, metric: str) -> float | None:
    """The value of a reading as a number, if it is one."""
    value = observation.reading.values.get(metric)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def remembered(history: History, observation: Observation, metrics: Iterable[str], horizon_seconds: float) -> History:
    """The history with what was measured now; what is missing from a reading leaves a gap."""
    after = dict(history)
    for metric in metrics:
        value = figure(observation, metric)
        if value is not None:
            after[metric] = extended(history.get(metric, ()), (observation.taken_at.timestamp(), round(value, 2)), horizon_seconds)
    return after
