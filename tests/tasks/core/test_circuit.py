"""When a failing planner is left alone."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.core.circuit import Circuit, open_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("failures", "minutes"), [(3, 1), (4, 2), (5, 4), (7, 16), (8, 30), (9, 30), (10_000, 30)])
def test_the_pause_doubles_up_to_half_an_hour(failures: int, minutes: int) -> None:
    assert open_until(failures, NOW) == NOW + timedelta(minutes=minutes)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_few_failures_are_forgiven(failures: int) -> None:
    assert open_until(failures, NOW) is None


def test_a_circuit_is_closed_open_or_half_open() -> None:
    assert Circuit(failures=2).is_closed()
    opened = Circuit(failures=3, open_until=NOW)
    assert not opened.is_closed()
    assert opened.blocks(NOW - timedelta(seconds=1))
    assert not opened.blocks(NOW)
