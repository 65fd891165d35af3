"""The kill switch where nobody answers, and what the policy is told of earlier remediations."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.schema import Autonomy, Rules
from tasks import authorising
from tasks.authorising import kill_switch, standing_of, stop_reason
from tasks.core.models import Change, FixRecord, Outcome, OutcomeStatus, Step, Verdict
from tasks.records.repository import Records
from tests.incidents import context_of, lab_inventory

LAB = lab_inventory().model_copy(update={"rules": Rules(cooldown_seconds=300)})
HERE = context_of("cache: memory_high")
NEIGHBOUR = context_of("db: down")


@pytest.fixture
async def silent_api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A Prefect API that takes connections and never answers."""
    ended = asyncio.Event()

    async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    monkeypatch.setattr(authorising, "STOP_READ_SECONDS", 0.2)
    monkeypatch.setattr(authorising, "STOP_PATIENCE_SECONDS", 0)
    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with temporary_settings(updates={PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            yield
        ended.set()


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Records of this test's own."""
    async with await Records.open(f"sqlite:///{tmp_path}/records.db") as opened:
        yield opened


@pytest.mark.parametrize("value", ["", " ", "false", "False", "NO", "0", 0, False, None, [], {}])
def test_values_that_stop_nothing(value: Any) -> None:
    assert stop_reason(value) == ""


@pytest.mark.parametrize(("value", "reason"), [("a release", "a release"), (" yes ", "yes"), (True, "True"), (1, "1"), (["x"], "['x']")])
def test_any_other_value_is_the_reason(value: Any, reason: str) -> None:
    assert stop_reason(value) == reason


async def test_a_switch_that_cannot_be_read_counts_as_on(silent_api: None) -> None:
    async with asyncio.timeout(3):
        assert await kill_switch() == "the Prefect variable evenkeel_stop can't be read (TimeoutError), so it counts as set"


async def fixed(
    records: Records,
    number: int,
    resource: str,
    tool: str,
    seconds_ago: float,
    *,
    changed: bool = True,
    ended: bool = True,
    closed: bool = True,
) -> None:
    """Put a remediation with one step on record."""
    begun_at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    base = HERE if resource == "shop-cache" else NEIGHBOUR
    incident = base.incident.model_copy(update={"id": f"fix-{number}", "opened_at": begun_at})
    record = FixRecord(id=incident.id, incident=incident, before=incident.observation, opened_at=begun_at)
    step = Step(tool=tool, target=resource, why="test")
    assert await records.open_fix(record, "me", begun_at)
    assert await records.begin_step(record.id, "me", 0, step, begun_at)
    if ended:
        change = Change(before={"it": "before"}, after={"it": "after" if changed else "before"})
        await records.end_step(record.id, 0, Outcome(step=step, status=OutcomeStatus.DONE, change=change, started_at=begun_at))
    if closed:
        assert await records.close_fix(record, "me", Verdict.COMPLETED, "", begun_at)


async def test_earlier_remediations_are_counted_and_the_one_that_asks_is_not(records: Records, silent_api: None) -> None:
    await fixed(records, 1, "shop-cache", "redis_flush", 4000)
    await fixed(records, 2, "shop-cache", "redis_flush", 3500)
    await fixed(records, 3, "shop-db", "postgres_restart", 200)
    await fixed(records, 4, "shop-cache", "redis_flush", 100, closed=False)
    own = HERE.model_copy(update={"incident": HERE.incident.model_copy(update={"id": "fix-4"})})
    standing = await standing_of(LAB, records, own, Autonomy.PROPOSE)
    assert (standing.fixes_last_hour, standing.fixes_last_hour_overall) == (1, 2)
    assert standing.seconds_since_last_use == {}
    assert standing.autonomy is Autonomy.PROPOSE
    assert "can't be read" in standing.stopped
    assert (await standing_of(LAB, records, HERE)).fixes_last_hour == 2


async def test_the_cool_down_counts_from_the_last_change(records: Records, silent_api: None) -> None:
    await fixed(records, 1, "shop-cache", "redis_flush", 200)
    await fixed(records, 2, "shop-cache", "redis_flush", 100)
    await fixed(records, 3, "shop-cache", "redis_memory_purge", 90, changed=False)
    await fixed(records, 4, "shop-cache", "redis_restart", 80, ended=False)
    await fixed(records, 5, "shop-cache", "redis_evict_to", 400)
    await fixed(records, 6, "shop-db", "postgres_restart", 10)
    used = (await standing_of(LAB, records, HERE)).seconds_since_last_use
    assert {tool: round(seconds, -1) for tool, seconds in used.items()} == {"redis_flush": 100, "redis_restart": 80}
