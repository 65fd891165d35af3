"""Fixes as records: what is kept, what is found again, what is refused."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from blocks.records_url import records_url
from tasks.core.models import (
    Attempt,
    Change,
    Decision,
    FixRecord,
    Health,
    Outcome,
    OutcomeStatus,
    Plan,
    Reading,
    Step,
    Verdict,
)
from tasks.records.repository import Records

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STEP = Step(tool="redis_evict_to", target="shop-cache", args={"percent": 70}, why="frees memory")
MakeRecord = Callable[..., FixRecord]
Query = Callable[..., Any]


def outcome(status: OutcomeStatus = OutcomeStatus.DONE) -> Outcome:
    change = Change(before={"memory_percent": 96.5}, after={"memory_percent": 70.0})
    return Outcome(step=STEP, status=status, change=change, started_at=T0, seconds=0.25)


async def test_a_whole_fix_comes_back_as_it_was_written(records: Records, make_record: MakeRecord) -> None:
    record = make_record()
    assert await records.open_fix(record, "me", T0)
    plan = Plan(planner="runbooks", decision=Decision.ACT, diagnosis="full", steps=(STEP,), reasoning="because ✓")
    healthy = record.before.model_copy(update={"health": Health.HEALTHY, "taken_at": T0 + 3 * SECOND})
    attempt = Attempt(plan=plan, observed=record.before, decisions=("allow",), outcomes=(outcome(),), after=healthy)
    told = record.model_copy(
        update={"attempts": (attempt,), "planner": "runbooks", "after": healthy, "timings": {"planned": 0.4, "healthy": 2.5}}
    )
    assert await records.update_fix(told, "me")
    assert await records.get("fix-1") == told
    assert await records.close_fix(told, "me", Verdict.COMPLETED, "memory is back at 70 %", T0 + 4 * SECOND)
    closed = {"verdict": Verdict.COMPLETED, "message": "memory is back at 70 %", "closed_at": T0 + 4 * SECOND}
    assert await records.get("fix-1") == told.model_copy(update=closed)
    assert await records.get("fix-2") is None


async def test_the_database_refuses_a_second_open_fix_of_a_resource(records: Records, make_record: MakeRecord, query: Query) -> None:
    assert await records.open_fix(make_record("fix-1"), "me", T0)
    assert not await records.open_fix(make_record("fix-2"), "you", T0)
    assert await records.open_fix(make_record("fix-3", resource="shop-db"), "you", T0)
    assert await records.open_fix(make_record("fix-4", inventory="other"), "you", T0)
    assert await query("SELECT id, owner FROM evenkeel_fixes ORDER BY id") == [("fix-1", "me"), ("fix-3", "you"), ("fix-4", "you")]
    assert await records.close_fix(make_record("fix-1"), "me", Verdict.FAILED, "", T0)
    assert await records.open_fix(make_record("fix-2"), "you", T0)


async def test_open_fixes_name_owner_heartbeat_and_stage(records: Records, make_record: MakeRecord) -> None:
    record = make_record()
    await records.open_fix(record, "me", T0)
    await records.open_fix(make_record("fix-2", inventory="other"), "me", T0)
    (found,) = await records.open_fixes("lab")
    assert (found.fix_id, found.resource, found.owner, found.flow_run_id) == ("fix-1", "shop-cache", "me", "run-1")
    assert (found.opened_at, found.heartbeat_at, found.stage) == (T0, T0, "opened")
    assert await records.heartbeat("fix-1", "me", T0 + SECOND)
    await records.update_fix(record.model_copy(update={"timings": {"planned": 0.5, "detected": 0.1}}), "me")
    (found,) = await records.open_fixes("lab")
    assert (found.heartbeat_at, found.stage) == (T0 + SECOND, "planned")
    await records.close_fix(record, "me", Verdict.COMPLETED, "", T0)
    assert await records.open_fixes("lab") == []


async def test_only_the_owner_of_an_open_fix_may_write_to_it(records: Records, make_record: MakeRecord, query: Query) -> None:
    record = make_record()
    await records.open_fix(record, "me", T0)
    before = await query("SELECT * FROM evenkeel_fixes")
    assert not await records.heartbeat("fix-1", "you", T0 + SECOND)
    assert not await records.update_fix(record.model_copy(update={"planner": "theirs"}), "you")
    assert not await records.close_fix(record, "you", Verdict.COMPLETED, "", T0)
    assert not await records.begin_step("fix-1", "you", 0, STEP, T0)
    assert await query("SELECT * FROM evenkeel_fixes") == before
    assert await query("SELECT * FROM evenkeel_steps") == []


async def test_a_fix_is_abandoned_only_by_the_heartbeat_that_was_heard_last(records: Records, make_record: MakeRecord) -> None:
    told = make_record().model_copy(update={"planner": "as the journal tells", "timings": {"planned": 0.5}})
    await records.open_fix(make_record(), "me", T0)
    for other in (T0 - SECOND, T0 + SECOND):
        assert await records.abandon(told, other, T0 + SECOND, "its owner was heard meanwhile, by whatever clock") is None
    assert await records.abandon(make_record("fix-9"), T0, T0, "no such fix") is None
    abandoned = await records.abandon(told, T0, T0 + 2 * SECOND, "silent")
    assert abandoned is not None
    assert (abandoned.verdict, abandoned.message, abandoned.closed_at) == (Verdict.ABANDONED, "silent", T0 + 2 * SECOND)
    assert (abandoned.planner, abandoned.timings) == (told.planner, told.timings)
    assert abandoned == await records.get("fix-1")
    assert await records.abandon(told, T0, T0 + 2 * SECOND, "again") is None
    assert await records.open_fixes("lab") == []


async def test_who_was_abandoned_can_do_nothing_more(records: Records, make_record: MakeRecord, query: Query) -> None:
    record = make_record()
    await records.open_fix(record, "me", T0)
    await records.begin_step("fix-1", "me", 0, STEP, T0)
    await records.abandon(record, T0, T0 + SECOND, "silent")
    assert not await records.begin_step("fix-1", "me", 1, STEP, T0)
    assert not await records.heartbeat("fix-1", "me", T0 + 2 * SECOND)
    assert not await records.update_fix(record, "me")
    assert not await records.close_fix(record, "me", Verdict.COMPLETED, "", T0)
    assert await query("SELECT ordinal FROM evenkeel_steps") == [(0,)]
    assert await query("SELECT verdict FROM evenkeel_fixes") == [("Abandoned",)]
    assert await records.end_step("fix-1", 0, outcome()), "what a begun step did is a fact, whoever owns the fix"


async def test_a_step_waits_for_a_takeover_under_way_and_is_refused(
    records: Records, make_record: MakeRecord, url: str, query: Query
) -> None:
    await records.open_fix(make_record(), "me", T0)
    engine = create_async_engine(records_url(url))
    async with engine.connect() as other:
        if engine.dialect.name == "sqlite":
            await other.exec_driver_sql("BEGIN IMMEDIATE")
        await other.execute(text("UPDATE evenkeel_fixes SET closed_at = opened_at, verdict = 'Abandoned'"))
        beginning = asyncio.create_task(records.begin_step("fix-1", "me", 0, STEP, T0))
        done, _ = await asyncio.wait([beginning], timeout=0.3)
        assert not done
        await other.commit()
        assert not await beginning
    await engine.dispose()
    assert await query("SELECT * FROM evenkeel_steps") == []


async def test_the_journal_tells_which_steps_were_interrupted(records: Records, make_record: MakeRecord) -> None:
    await records.open_fix(make_record(), "me", T0)
    assert await records.begin_step("fix-1", "me", 0, STEP, T0)
    assert await records.end_step("fix-1", 0, outcome())
    assert await records.begin_step("fix-1", "me", 1, STEP, T0 + SECOND)
    assert await records.interrupted_steps("fix-1") == [STEP]
    done, interrupted = await records.journal("fix-1")
    assert (done.ordinal, done.outcome) == (0, outcome())
    assert (interrupted.ordinal, interrupted.begun_at, interrupted.outcome) == (1, T0 + SECOND, None)


async def test_a_step_begins_once_and_ends_once(records: Records, make_record: MakeRecord) -> None:
    await records.open_fix(make_record(), "me", T0)
    assert not await records.end_step("fix-1", 0, outcome())
    assert await records.begin_step("fix-1", "me", 0, STEP, T0)
    assert not await records.begin_step("fix-1", "me", 0, STEP, T0)
    assert await records.end_step("fix-1", 0, outcome())
    assert not await records.end_step("fix-1", 0, outcome(OutcomeStatus.FAILED))
    assert not await records.begin_step("fix-1", "me", 0, STEP, T0)
    (entry,) = await records.journal("fix-1")
    assert entry.outcome == outcome()


async def test_beginning_a_step_is_a_sign_of_life(records: Records, make_record: MakeRecord) -> None:
    await records.open_fix(make_record(), "me", T0)
    await records.begin_step("fix-1", "me", 0, STEP, T0 + 2 * SECOND)
    assert await records.abandon(make_record(), T0, T0, "silent") is None


async def test_history_is_filtered_and_newest_first(records: Records, make_record: MakeRecord) -> None:
    for number, resource in enumerate(["shop-cache", "shop-db", "shop-cache", "shop-cache"]):
        record = make_record(f"fix-{number}", resource=resource, opened_at=T0 + number * SECOND)
        await records.open_fix(record, "me", T0)
        if number < 3:
            await records.close_fix(record, "me", Verdict.COMPLETED if number else Verdict.FAILED, "", T0)

    async def ids(**wanted: Any) -> list[str]:
        return [record.id for record in await records.history(**wanted)]

    assert await ids() == ["fix-3", "fix-2", "fix-1", "fix-0"]
    assert await ids(limit=2) == ["fix-3", "fix-2"]
    assert await ids(resource="shop-cache") == ["fix-3", "fix-2", "fix-0"]
    assert await ids(inventory="other") == []
    assert await ids(verdict=Verdict.COMPLETED) == ["fix-2", "fix-1"]
    assert await ids(since=T0 + 2 * SECOND) == ["fix-3", "fix-2"]
    assert await records.fixes_since("lab", "shop-cache", T0 + SECOND, besides="fix-9") == (2, 3)
    assert await records.fixes_since("lab", "shop-cache", T0 + SECOND, besides="fix-2") == (1, 2)
    assert await records.fixes_since("other", "shop-cache", T0, besides="fix-9") == (0, 0)


async def test_the_steps_of_other_fixes_are_found_by_resource_and_time(records: Records, make_record: MakeRecord) -> None:
    for number, resource in enumerate(("shop-cache", "shop-db", "shop-cache", "shop-cache")):
        record = make_record(f"fix-{number}", resource=resource)
        assert await records.open_fix(record, "me", T0)
        assert await records.begin_step(record.id, "me", 1, STEP, T0 + number * SECOND)
        await records.close_fix(record, "me", Verdict.COMPLETED, "", T0)
    await records.end_step("fix-2", 1, outcome())

    async def found(since: datetime, besides: str = "fix-9") -> list[datetime]:
        return [entry.begun_at for entry in await records.steps_since("lab", "shop-cache", since, besides=besides)]

    assert await found(T0) == [T0, T0 + 2 * SECOND, T0 + 3 * SECOND]
    assert await found(T0 + SECOND) == [T0 + 2 * SECOND, T0 + 3 * SECOND]
    assert await found(T0, besides="fix-3") == [T0, T0 + 2 * SECOND]
    assert await records.steps_since("other", "shop-cache", T0, besides="") == []
    (entry,) = await records.steps_since("lab", "shop-cache", T0 + 2 * SECOND, besides="fix-3")
    assert (entry.step, entry.outcome) == (STEP, outcome())


async def test_deletion_takes_the_journal_along_and_spares_what_is_open(records: Records, make_record: MakeRecord, query: Query) -> None:
    for number in range(3):
        record = make_record(f"fix-{number}", resource=f"shop-{number}")
        await records.open_fix(record, "me", T0)
        await records.begin_step(record.id, "me", 0, STEP, T0)
        if number != 2:
            await records.close_fix(record, "me", Verdict.COMPLETED, "", T0 + number * SECOND)
    assert await records.delete(older_than=T0) == 0
    assert await records.delete(older_than=T0 + SECOND) == 1
    assert await query("SELECT id FROM evenkeel_fixes ORDER BY id") == [("fix-1",), ("fix-2",)]
    assert await query("SELECT fix_id FROM evenkeel_steps ORDER BY fix_id") == [("fix-1",), ("fix-2",)]
    assert await records.delete(ids=["fix-1", "fix-2", "no-such"]) == 1
    assert await query("SELECT id FROM evenkeel_fixes") == [("fix-2",)]
    with pytest.raises(ValueError, match="either older_than or ids"):
        await records.delete()


async def test_text_that_no_database_takes_is_kept_as_far_as_it_can_be(records: Records, make_record: MakeRecord) -> None:
    record = make_record()
    odd = Reading(values={"key": "a\x00b\udcff", "share": float("nan"), "nested": {"limit": float("inf")}})
    record = record.model_copy(update={"before": record.before.model_copy(update={"reading": odd})})
    assert await records.open_fix(record, "me", T0)
    assert await records.close_fix(record, "me", Verdict.FAILED, "log said \x00\udcff!", T0)
    kept = await records.get("fix-1")
    assert kept is not None
    assert kept.message == "log said \ufffd\ufffd!"
    assert kept.before.reading.values["share"] is None


async def test_a_time_without_a_zone_is_refused_and_another_zone_is_converted(records: Records, make_record: MakeRecord) -> None:
    await records.open_fix(make_record(), "me", T0)
    with pytest.raises(ValueError, match="no time zone"):
        await records.heartbeat("fix-1", "me", datetime(2026, 3, 1, 12))  # noqa: DTZ001 - that it has no zone is the point
    elsewhere = T0.astimezone(tz=datetime.strptime("+0500", "%z").tzinfo)
    assert await records.abandon(make_record(), elsewhere + SECOND, T0, "") is None
    assert await records.abandon(make_record(), elsewhere, T0, "") is not None


async def test_a_write_that_is_cancelled_leaves_the_records_usable(records: Records, make_record: MakeRecord) -> None:
    await records.open_fix(make_record(), "me", T0)
    for number in range(20):
        beating = asyncio.create_task(records.heartbeat("fix-1", "me", T0 + number * SECOND))
        await asyncio.sleep(number / 10_000)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    assert await records.heartbeat("fix-1", "me", T0 + 99 * SECOND)
    (found,) = await records.open_fixes("lab")
    assert found.heartbeat_at == T0 + 99 * SECOND


async def test_many_writers_in_one_process_neither_fail_nor_lose(records: Records, make_record: MakeRecord, query: Query) -> None:
    async def one(number: int) -> None:
        record = make_record(f"fix-{number}", resource=f"shop-{number}")
        assert await records.open_fix(record, "me", T0)
        assert await records.begin_step(record.id, "me", 0, STEP, T0)
        assert await records.end_step(record.id, 0, outcome())
        assert await records.close_fix(record, "me", Verdict.COMPLETED, "", T0)

    await asyncio.gather(*(one(number) for number in range(30)))
    assert await query("SELECT count(*), count(closed_at) FROM evenkeel_fixes") == [(30, 30)]


async def test_a_claim_and_a_journalled_step_cost_milliseconds(records: Records, make_record: MakeRecord) -> None:
    seconds = []
    for number in range(20):
        record = make_record(f"fix-{number}", resource=f"shop-{number}")
        started = time.monotonic()
        await records.open_fix(record, "me", T0)
        await records.begin_step(record.id, "me", 0, STEP, T0)
        seconds.append(time.monotonic() - started)
    assert sorted(seconds)[10] < 0.05, "the median of both together"
