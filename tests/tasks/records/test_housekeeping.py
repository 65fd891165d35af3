"""What is old goes, what is open or learnt from stays, and how large it all is can be told."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.core.models import FixRecord, Health, Step, Verdict
from tasks.records import housekeeping
from tasks.records.housekeeping import Removed
from tasks.records.repository import Records
from tasks.records.rows import Status

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
MakeRecord = Callable[..., FixRecord]
Query = Callable[..., Any]


def seen(resource: str, when: datetime) -> Status:
    return Status(resource=resource, health=Health.HEALTHY, summary="answers", headline=40.0, taken_at=when)


async def closed(records: Records, record: FixRecord) -> None:
    await records.open_fix(record, "me", record.opened_at)
    await records.begin_step(record.id, "me", 0, Step(tool="redis_flush", target="shop-cache", why="frees memory"), record.opened_at)
    await records.close_fix(record, "me", Verdict.COMPLETED, "", record.opened_at)


async def test_the_newest_of_what_is_watched_and_what_is_open_stay(records: Records, make_record: MakeRecord, query: Query) -> None:
    for number in range(5):
        await closed(records, make_record(f"watched-{number}", resource="shop-cache", opened_at=NOW - (300 - number) * DAY))
        await closed(records, make_record(f"retired-{number}", resource="old-cache", opened_at=NOW - (300 - number) * DAY))
    await closed(records, make_record("young", resource="old-cache", opened_at=NOW - 2 * DAY))
    await records.open_fix(make_record("open", resource="old-cache", opened_at=NOW - 299 * DAY), "me", NOW)
    await records.save_statuses("lab", [seen("shop-cache", NOW), seen("old-cache", NOW - 200 * DAY)])
    await records.save_histories("lab", {name: {"memory_percent": ((1.0, 40.0),)} for name in ("shop-cache", "old-cache")})
    await records.take_over_monitor("lab", "run-2", NOW)
    await records.take_over_monitor("lab/share/retired", "run-1", NOW - 200 * DAY)

    removed = await records.delete_old(NOW - 90 * DAY, keep_of_each_resource=2)
    assert removed == Removed(fixes=8, resources=1, monitors=1)
    left = ["open", "watched-3", "watched-4", "young"]
    assert await query("SELECT id FROM evenkeel_fixes ORDER BY id") == [(name,) for name in left]
    assert await query("SELECT fix_id FROM evenkeel_steps ORDER BY fix_id") == [(name,) for name in left if name != "open"]
    assert await query("SELECT resource FROM evenkeel_statuses") == [("shop-cache",)]
    assert await query("SELECT resource FROM evenkeel_histories") == [("shop-cache",)]
    assert await query("SELECT inventory FROM evenkeel_monitors") == [("lab",)]

    assert await records.delete_old(NOW - 90 * DAY) == Removed(fixes=2, resources=0, monitors=0), "none kept where none is asked for"
    assert await query("SELECT id FROM evenkeel_fixes ORDER BY id") == [("open",), ("young",)]


async def test_what_is_healthy_for_long_is_not_taken_for_gone(records: Records, query: Query) -> None:
    for days in range(10, -1, -1):
        written = await records.save_statuses("lab", [seen("shop-cache", NOW - days * DAY)])
        assert written == 1, "once a day"
        assert await records.save_statuses("lab", [seen("shop-cache", NOW - days * DAY + DAY / 2)]) == 0
    assert (await records.delete_old(NOW)).resources == 0
    ((since,),) = await query("SELECT since FROM evenkeel_statuses")
    assert str(since).startswith("2026-02-19"), "and it is known for how long"


async def test_more_than_a_batch_is_deleted_and_the_size_shows_it(
    records: Records, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "BATCH", 10)
    for number in range(25):
        await closed(records, make_record(f"fix-{number}", opened_at=NOW))
    before = {one.table: one for one in await records.sizes()}
    assert (before["evenkeel_fixes"].rows, before["evenkeel_steps"].rows) == (25, 25)
    assert (before["evenkeel_fixes"].kibibytes or 0) > 25
    assert (await records.delete_old(NOW + DAY)).fixes == 25
    assert [one.rows for one in await records.sizes()] == [0] * len(before)
