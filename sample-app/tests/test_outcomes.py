"""The record of the last hour, on its own."""

from __future__ import annotations

import pytest

from shop.outcomes import KEPT_SECONDS, Outcomes, percentile

NOW = 1_800_000_000.0


def test_nothing_yet() -> None:
    assert Outcomes().summary() == {
        "requests": 0,
        "failures": 0,
        "failure_kinds": {},
        "latency_seconds": {"p50": None, "p95": None, "max": None},
    }


def test_counts_only_the_seconds_asked_for() -> None:
    outcomes = Outcomes()
    for second in range(10):
        outcomes.add(NOW + second + 0.5, 0.1 * (second + 1), "timeout" if second in (3, 7) else None)
    outcomes.add(NOW + 3.1, None, "not sent")
    assert outcomes.summary(since=NOW + 3.9, until=NOW + 7)["failure_kinds"] == {"timeout": 2, "not sent": 1}
    assert outcomes.summary(since=NOW + 3.9, until=NOW + 7)["requests"] == 6
    assert outcomes.summary(since=NOW + 8)["requests"] == 2
    assert outcomes.summary()["latency_seconds"] == {"p50": 0.5, "p95": 1.0, "max": 1.0}


def test_late_ends_are_counted_where_they_started() -> None:
    outcomes = Outcomes()
    outcomes.add(NOW + 5, 0.1, None)
    outcomes.add(NOW + 3, 2.0, "timeout")
    outcomes.add(NOW + 3, 2.0, "timeout")
    assert outcomes.summary(NOW + 3, NOW + 3)["failures"] == 2
    assert outcomes.summary(NOW + 4)["requests"] == 1


def test_forgets_after_an_hour() -> None:
    outcomes = Outcomes()
    for second in range(KEPT_SECONDS + 50):
        outcomes.add(NOW + second, 0.1, None)
    outcomes.add(NOW, 0.1, None)
    assert outcomes.summary()["requests"] == KEPT_SECONDS


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.95, 4.0), (1.0, 4.0), (0.0, 1.0)])
def test_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == expected
