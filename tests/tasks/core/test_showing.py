"""When the status of what a monitor watches is kept, and when it is shown as a table."""

from datetime import UTC, datetime, timedelta

from tasks.core.models import Health
from tasks.core.showing import Board

WELL = {"cache": (Health.HEALTHY, ""), "web": (Health.HEALTHY, "")}
UNWELL = {**WELL, "cache": (Health.DEGRADED, "")}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def due(board: Board, seen: dict[str, tuple[Health, str]], seconds: float, *, leads: bool = True) -> str:
    return board.due(seen, seconds=seconds, moment=NOON + timedelta(seconds=seconds), leads=leads)


def test_a_first_run_shows_all_and_what_changes_at_once() -> None:
    board = Board(2)
    assert due(board, WELL, 0) == "show"
    assert due(board, WELL, 2) == "nothing"
    assert due(board, UNWELL, 4) == "show"
    assert due(board, UNWELL, 6) == "nothing"


def test_a_small_table_is_shown_each_minute_and_a_large_one_seldom() -> None:
    shown = {
        size: sum(due(board, WELL, second) == "show" for second in range(0, 86400, 15))
        for size in (3, 1000, 10_000)
        for board in [Board(size)]
    }
    assert shown == {3: 1440, 1000: 144, 10_000: 16}


def test_the_run_after_shows_only_what_has_changed_since_the_run_before() -> None:
    board = Board(1000)
    board.swept_before(NOON)
    board.left({"cache": Health.HEALTHY, "web": Health.HEALTHY})
    assert due(board, WELL, 5) == "keep"
    assert due(board, UNWELL, 10) == "show"
    again = Board(1000)
    again.swept_before(NOON)
    again.left({"cache": Health.DEGRADED})
    assert due(again, UNWELL, 5) == "show", "one that nobody has seen"


def test_what_changes_all_the_time_is_kept_each_time_and_shown_now_and_then() -> None:
    board = Board(1000)
    assert due(board, WELL, 0) == "show"
    answers = [due(board, (UNWELL, WELL)[second // 2 % 2], second) for second in range(4, 24, 2)]
    assert answers.count("show") == 2
    assert set(answers) == {"show", "keep"}


def test_of_several_monitors_one_shows_what_does_not_change() -> None:
    follower = Board(3)
    assert due(follower, WELL, 0, leads=False) == "show"
    assert due(follower, WELL, 61, leads=False) == "keep"
    assert due(follower, UNWELL, 62, leads=False) == "show"
    assert due(follower, UNWELL, 3600, leads=True) == "show", "the one that led is gone"
