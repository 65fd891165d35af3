"""What is kept of planners between processes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from tasks.core.circuit import FIRST_PAUSE, Circuit
from tasks.core.models import Usage
from tasks.records.repository import Records

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = date(2026, 3, 1)
NAME = "gemini/lab"
Query = Callable[..., Any]


async def test_a_planner_that_nobody_knows_is_closed_and_has_used_nothing(records: Records) -> None:
    assert await records.circuit(NAME) == Circuit()
    assert await records.use_of(NAME, DAY) == Usage()


async def test_failures_are_counted_by_all_processes_together(url: str, records: Records, query: Query) -> None:
    async with await Records.open(url) as other:
        await asyncio.gather(*(one.planner_failed(NAME, T0) for one in (records, other) for _ in range(4)))
        await other.planner_failed("gemini/else", T0)
    assert await query("SELECT failures FROM evenkeel_planners ORDER BY name") == [(1,), (8,)]
    state = await records.circuit(NAME)
    assert state.open_until == T0 + timedelta(minutes=30)
    await records.planner_succeeded(NAME)
    assert await records.circuit(NAME) == Circuit()


async def test_only_one_claims_the_trial(url: str, records: Records) -> None:
    for _ in range(3):
        state = await records.planner_failed(NAME, T0)
    assert state == await records.circuit(NAME) == Circuit(failures=3, open_until=T0 + FIRST_PAUSE)
    later, until = T0 + FIRST_PAUSE, T0 + 2 * FIRST_PAUSE
    assert not await records.claim_trial(NAME, later - timedelta(seconds=1), until)
    async with await Records.open(url) as other:
        claims = await asyncio.gather(*(one.claim_trial(NAME, later, until) for one in (records, other) for _ in range(3)))
    assert sorted(claims) == [False] * 5 + [True]
    assert (await records.circuit(NAME)).open_until == until
    assert await records.claim_trial(NAME, until, until + FIRST_PAUSE), "the one who tried may have died"


async def test_use_is_summed_by_day_whoever_adds(url: str, records: Records, query: Query) -> None:
    used = Usage(requests=2, input_tokens=4000, output_tokens=500, dollars=0.25, seconds=1.5)
    async with await Records.open(url) as other:
        await asyncio.gather(*(one.add_use(NAME, DAY, used) for one in (records, other) for _ in range(5)))
    await records.add_use(NAME, DAY + timedelta(days=1), used)
    await records.add_use("gemini/else", DAY, used)
    total = await records.use_of(NAME, DAY)
    assert (total.requests, total.input_tokens, total.output_tokens) == (20, 40_000, 5000)
    assert total.dollars == pytest.approx(2.5)
    assert total.seconds == pytest.approx(15)
    assert await query("SELECT count(*) FROM evenkeel_planner_use") == [(3,)]
