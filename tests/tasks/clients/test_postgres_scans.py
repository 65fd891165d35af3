"""The rate of scans, told from counts that only grow."""

from tasks.clients.postgres_scans import ScanHistory


def table(oid: int, scans: int) -> dict[str, int]:
    return {"oid": oid, "scans": scans}


def test_a_rate_is_told_over_three_seconds_at_least() -> None:
    history = ScanHistory()
    assert history.busiest([table(1, 100)], now=0) is None
    assert history.busiest([table(1, 200)], now=2.9) is None
    found = history.busiest([table(1, 130), table(2, 5)], now=3)
    assert found is not None
    assert (found["oid"], found["scans_per_second"]) == (1, 10)


def test_the_latest_reading_that_is_old_enough_counts_and_a_reset_is_no_negative_rate() -> None:
    history = ScanHistory()
    for second in range(10):
        history.busiest([table(1, 1000 + 10 * second), table(2, 40 * second)], now=second)
    found = history.busiest([table(1, 0), table(2, 400)], now=10)
    assert found is not None
    assert (found["oid"], found["scans_per_second"]) == (2, 40)
    assert history.busiest([], now=11) is None
    assert history.busiest([table(3, 7)], now=12) is None  # not seen three seconds ago
