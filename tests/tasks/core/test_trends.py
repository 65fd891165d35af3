"""A rise that lasts is predicted to cross its threshold; what only looks like one is not."""

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.schema import Kind, Resource, Risk, Thresholds
from tasks.core.declare import NoArgs, Tool, declaration_of
from tasks.core.declare import tool as declare_tool
from tasks.core.models import Change, Finding, Forecast, Health, Observation, Reading
from tasks.core.policy import is_premature
from tasks.core.trends import MIN_POINTS, History, Points, extended, forecast, joined, remembered, slope, still_predicted, with_predictions

THRESHOLD = 95.0
HORIZON = 600.0
EVERY = 25.0
Curve = Callable[[float, random.Random], float]
TRENDS = {"memory_percent": "memory_high"}


def first_alarm(curve: Curve, until: float, seed: int = 0) -> tuple[float, float] | None:
    """When a curve that is measured every 25 s is first predicted to cross, and when it does at that pace; both in seconds."""
    chance = random.Random(seed)
    points: Points = ()
    for number in range(int(until / EVERY)):
        now = number * EVERY
        points = extended(points, (now, round(curve(now, chance), 2)), HORIZON)
        pace = forecast(points, THRESHOLD, HORIZON)
        if pace is not None:
            return now, now + (THRESHOLD - points[-1][1]) / pace
    return None


@settings(max_examples=30, deadline=None, derandomize=True)
@given(start=st.floats(20, 60), hours=st.floats(0.4, 1.2), noise=st.floats(0, 0.7), seed=st.integers(0, 1000))
def test_a_lasting_rise_is_predicted_minutes_before(start: float, hours: float, noise: float, seed: int) -> None:
    crosses = hours * 3600
    found = first_alarm(lambda now, chance: start + (THRESHOLD - start) * now / crosses + chance.gauss(0, noise), crosses, seed)
    assert found is not None
    alarm, predicted = found
    assert 100 <= crosses - alarm <= HORIZON * 1.3
    assert abs(predicted - crosses) < 0.5 * HORIZON


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), every=st.integers(11, 15))
def test_outliers_hide_no_rise(seed: int, every: int) -> None:
    def curve(now: float, chance: random.Random) -> float:
        return chance.uniform(0, 94) if int(now / EVERY) % every == 0 else 40 + 55 * now / 2400

    assert first_alarm(curve, 2400, seed) is not None


NO_RISE: dict[str, Callable[[float, float], Curve]] = {
    "flat": lambda noise, _: lambda now, chance: 85 + chance.gauss(0, noise),
    "falling": lambda noise, share: lambda now, chance: 94 - share * 60 * now / 7200 + chance.gauss(0, noise),
    "a step to a new level": lambda noise, share: lambda now, chance: (40 if now < share * 3600 else 85) + chance.gauss(0, noise),
    "two steps": lambda noise, share: (
        lambda now, chance: 40 + 24 * (now >= 1200 + share * 600) + 24 * (now >= 1500 + share * 600) + chance.gauss(0, noise)
    ),
    "a cache that fills and evicts": lambda noise, share: (
        lambda now, chance: 30 + 55 * ((now / (120 + share * 900) + share) % 1) + chance.gauss(0, noise)
    ),
    "swings of the traffic": lambda noise, share: (
        lambda now, chance: 60 + 20 * math.sin(2 * math.pi * (now / (120 + share * 900) + share)) + chance.gauss(0, noise)
    ),
    "a rise that ends below": lambda noise, share: (
        lambda now, chance: 20 + 65 * (1 - math.exp(-now / (100 + share * 500))) + chance.gauss(0, noise)
    ),
}


@pytest.mark.parametrize("shape", NO_RISE)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(noise=st.floats(0, 2), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_what_only_looks_like_a_rise_is_left_alone(shape: str, noise: float, share: float, seed: int) -> None:
    assert first_alarm(NO_RISE[shape](noise, share), 7200, seed) is None


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(0, 100), max_size=80),
    gaps=st.lists(st.floats(0, 200), min_size=80, max_size=80),
    horizon=st.floats(0, 3000),
)
def test_whatever_is_measured_a_prediction_keeps_its_rules(values: list[float], gaps: list[float], horizon: float) -> None:
    points: Points = ()
    now = 0.0
    for value, gap in zip(values, gaps, strict=False):
        now += gap
        points = extended(points, (now, value), horizon)
        assert len(points) < 80
        pace = forecast(points, THRESHOLD, horizon)
        if pace is not None:
            assert horizon > 0
            assert len(points) >= MIN_POINTS
            assert pace > 0
    assert list(points) == sorted(points)


@given(pace=st.floats(-5, 5), outliers=st.sets(st.integers(0, 23), max_size=4))
def test_the_fit_is_not_moved_by_outliers(pace: float, outliers: set[int]) -> None:
    points = [(25.0 * number, 1000.0 if number in outliers else pace * 25 * number) for number in range(24)]
    # Least squares would be off by up to 2 a second; the median only moves to the next of the true slopes, which are all the same.
    assert math.isclose(slope(points), pace, abs_tol=1e-9)


def test_a_switched_off_horizon_predicts_nothing() -> None:
    points = tuple((number * EVERY, 20 + number * 0.9) for number in range(80))
    assert forecast(points, THRESHOLD, HORIZON) is not None
    assert forecast(points, THRESHOLD, 0) is None
    assert forecast(points[:9], THRESHOLD, HORIZON) is None


def observed(percent: float | None, health: Health = Health.HEALTHY, findings: tuple[Finding, ...] = ()) -> Observation:
    return Observation(
        resource="cache",
        kind=Kind.REDIS,
        health=health,
        findings=findings,
        reading=Reading(values={"memory_percent": percent}),
        taken_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def cache(**thresholds: float) -> Resource:
    return Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1", thresholds=Thresholds(**thresholds))


HISTORY = {"memory_percent": tuple((number * EVERY, 20 + number * 0.9) for number in range(76))}


def test_a_prediction_degrades_and_says_when() -> None:
    (finding,) = with_predictions(observed(88), TRENDS, HISTORY, cache()).findings
    assert (finding.symptom, finding.health, finding.predicted) == ("memory_high", Health.DEGRADED, True)
    assert finding.summary.startswith("predicted: memory_percent is 88.0 and rises by 2.2 a minute")
    assert "95 in 3 min" in finding.summary


def test_what_is_measured_is_not_predicted_as_well() -> None:
    measured = Finding(symptom="memory_high", health=Health.DEGRADED, summary="memory at 96 %")
    breach = observed(96, Health.DEGRADED, (measured,))
    assert with_predictions(breach, TRENDS, HISTORY, cache()) == breach
    assert with_predictions(observed(None, Health.UNKNOWN), TRENDS, HISTORY, cache()).findings == ()
    assert not breach.predicted
    slow = Finding(symptom="slow", health=Health.DEGRADED, summary="slow")
    both = with_predictions(observed(88, Health.DEGRADED, (slow,)), TRENDS, HISTORY, cache())
    assert [finding.symptom for finding in both.findings] == ["slow", "memory_high"]
    assert not both.predicted


@pytest.mark.parametrize(("percent", "health"), [(88.0, Health.DEGRADED), (60.0, Health.HEALTHY), (None, Health.HEALTHY)])
def test_a_prediction_holds_until_there_is_room_for_the_horizon(percent: float | None, health: Health) -> None:
    expected = Finding(
        symptom="memory_high", health=Health.DEGRADED, summary="", forecast=Forecast(metric="memory_percent", per_second=0.036)
    )
    assert still_predicted(observed(percent), (expected,), cache()).health is health


def test_histories_are_handed_over_without_a_gap() -> None:
    before: History = {"memory_percent": ((0.0, 1.0), (25.0, 2.0))}
    own: History = {"memory_percent": ((25.0, 2.0), (50.0, 3.0))}
    assert joined(before, own) == {"memory_percent": ((0.0, 1.0), (25.0, 2.0), (50.0, 3.0))}
    assert joined(before, {}) == before
    assert remembered({}, observed(None), TRENDS, HORIZON) == {}
    assert [value for _, value in remembered({}, observed(41.128), TRENDS, HORIZON)["memory_percent"]] == [41.13]


def tool(risk: Risk) -> Tool:
    async def act(client: object, args: NoArgs) -> Change:
        """Do something about the memory."""
        raise NotImplementedError

    undo = "act" if risk is Risk.REVERSIBLE else None
    declared = declaration_of(declare_tool(service=Kind.REDIS, risk=risk, title="", undo=undo, symptoms={"memory_high"})(act))
    assert isinstance(declared, Tool)
    return declared


def test_only_what_is_not_felt_is_done_for_a_prediction() -> None:
    rising = with_predictions(observed(88), TRENDS, HISTORY, cache())
    assert {risk for risk in Risk if is_premature(tool(risk), rising)} == {Risk.DISRUPTIVE, Risk.DESTRUCTIVE}
    measured = Finding(symptom="memory_high", health=Health.DEGRADED, summary="memory at 96 %")
    assert not any(is_premature(tool(risk), observed(96, Health.DEGRADED, (measured,))) for risk in Risk)
