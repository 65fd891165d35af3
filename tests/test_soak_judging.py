"""The arithmetic of a soak's verdict: what is flat passes with all its noise, and a planted leak is found."""

import math
import random

import pytest

from tests.soak.faults import HEALED, MOST_PASSED, NAMES, Deck
from tests.soak.judging import (
    COUNTS,
    MEMORY,
    ROWS,
    Allowance,
    Ended,
    Flatness,
    by_scenario,
    flatness,
    left_over,
    not_back,
    percentile,
    wrong_endings,
)

HOUR = 3600
EVERY = 30
WARM = 360.0
PLATEAU = 780.0


def over_an_hour(value_at: "dict[str, float]", seed: int = 1, noise: float = 0) -> list[tuple[float, float]]:
    """Values of `start`, `leak` an hour, `kept` rows of a table that holds `rate` a second for 600 s, and noise."""
    rng = random.Random(seed)

    def at(seconds: int) -> float:
        rows = value_at.get("rate", 0) * min(seconds, value_at.get("kept", math.inf))
        return value_at.get("start", 0) + value_at.get("leak", 0) * seconds / HOUR + rows

    return [(float(seconds), at(seconds) * (1 + rng.uniform(-noise, noise))) for seconds in range(0, HOUR + 1, EVERY)]


@pytest.mark.parametrize(
    ("what", "since", "allowance", "is_flat"),
    [
        pytest.param({"start": 280}, WARM, MEMORY, True, id="memory that stays"),
        pytest.param({"start": 280, "leak": 30}, WARM, MEMORY, True, id="memory within what is allowed"),
        pytest.param({"start": 280, "leak": 120}, WARM, MEMORY, False, id="a leak of 2 MiB a minute"),
        pytest.param({"rate": 12, "kept": 600}, PLATEAU, ROWS, True, id="rows that are deleted at their age"),
        pytest.param({"rate": 12}, PLATEAU, ROWS, False, id="rows that nobody deletes"),
        pytest.param({"start": 40, "leak": 180}, PLATEAU, ROWS, False, id="a row a fault that stays"),
        pytest.param({"start": 24}, WARM, COUNTS, True, id="connections that stay"),
        pytest.param({"start": 24, "leak": 30}, WARM, COUNTS, False, id="a connection every two minutes"),
    ],
)
def test_leak_shows_through_the_noise(what: "dict[str, float]", since: float, allowance: Allowance, is_flat: bool) -> None:
    for seed in range(5):
        found = flatness("it", "units", over_an_hour(what, seed, noise=0.08), since, allowance)
        assert found.is_judged
        assert (found.problem == "") is is_flat, found


def test_outliers_and_a_late_start_are_no_leak() -> None:
    points = [(at, 300.0 if at < WARM else 900.0 if at % 300 == 0 else 400.0) for at, _ in over_an_hour({})]
    assert flatness("it", "MiB", points, WARM, MEMORY).problem == ""


def test_too_little_is_not_judged() -> None:
    rising = flatness("it", "MiB", [(400.0, 10.0), (430.0, 900.0)], WARM, MEMORY)
    assert (rising.is_judged, rising.problem) == (False, "")
    assert flatness("it", "MiB", [(1.0, 10.0)], WARM, MEMORY) == Flatness("it", "MiB", 0, 0, 0, 0, 20)


def test_what_does_not_come_back_is_named() -> None:
    before, tolerated = {"processes of worker": 1.0, "descriptors of worker": 40.0}, {"processes of worker": 0.0}
    assert not_back(before, {"processes of worker": 1.0, "descriptors of worker": 60.0}, tolerated, 30) == []
    after = {"processes of worker": 2.0, "descriptors of worker": 71.0, "zombies of worker": 31.0}
    assert [one.split(":")[0] for one in not_back(before, after, tolerated, 30)] == [*sorted(after)]


def test_rows_past_their_age_are_named() -> None:
    assert left_over({"log": 9, "artifact": 50}, {"log": 40, "artifact": 5000}) == []
    assert left_over({"log": 11}, {"log": 400}) == ["log: 11 of 400 rows are past their age"]


def test_endings_by_scenario() -> None:
    def one(outcome: str, seconds: float | None = None, *problems: str, again: bool = False) -> Ended:
        return Ended("redis_memory_pressure", "healed", outcome, problems, seconds, again)

    trials = [one("healed", 1.0), one("healed", 3.0, again=True), one("escalated"), one("healed", 2.0, "relapsed")]
    (row,) = by_scenario([*trials, one("inconclusive", None, "no symptom appeared")])
    assert (row.n, row.right, row.wrong, row.called, row.again) == (5, 3, 2, 1, 1)
    assert (row.median_seconds, row.p95_seconds) == (2.0, 3.0)
    assert wrong_endings(trials) == ["redis_memory_pressure ended as healed: relapsed"]


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([], 95) is None
    assert percentile([1.0], 95) == 1.0
    assert percentile([float(one) for one in range(1, 101)], 95) == 95.0


def test_each_fault_comes_as_often_as_any_other() -> None:
    deck = Deck(NAMES, seed=7)
    drawn = [deck.next_of(NAMES) for _ in range(3 * len(NAMES))]
    assert {name: drawn.count(name) for name in NAMES} == dict.fromkeys(NAMES, 3)
    assert drawn != [name for _ in range(3) for name in NAMES]
    again = Deck(NAMES, seed=7)
    assert [again.next_of(NAMES) for _ in range(len(NAMES))] == drawn[: len(NAMES)]


def test_what_has_no_room_comes_later_but_comes() -> None:
    deck, fitting = Deck(NAMES, seed=7), [name for name in HEALED if name.startswith("redis")]
    assert deck.next_of([]) is None
    drawn = [name for _ in range(3 * len(NAMES)) if (name := deck.next_of(fitting))]
    assert MOST_PASSED <= len(drawn) < len(fitting), "the first in turn is waited for"
    assert deck.next_of(fitting) is None
    rest = [deck.next_of(NAMES) for _ in range(len(NAMES) - len(drawn))]
    assert sorted(filter(None, [*drawn, *rest])) == sorted(NAMES)
