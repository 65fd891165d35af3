"""The lock and the journal between real processes, some of which are killed."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.core.models import FixRecord, Verdict
from tasks.records.repository import Records

ROOT = Path(__file__).parents[3]
CLAIMANT = Path(__file__).with_name("claimant.py")
DEADLINE_SECONDS = 30
RACERS = 4
MakeRecord = Callable[..., FixRecord]
Query = Callable[..., Any]


@dataclass
class Claimant:
    """A process with records of its own."""

    process: asyncio.subprocess.Process

    async def ask(self, *command: str) -> bool:
        """What the process answers."""
        self.send(*command)
        return bool(await self.answer())

    def send(self, *command: str) -> None:
        """Have it begin, without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def answer(self) -> Any:
        """The next line of the process."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_SECONDS)
        assert line, "the process ended without an answer; its error stands in the captured stderr"
        return json.loads(line)


@asynccontextmanager
async def claimant(url: str) -> AsyncIterator[Claimant]:
    """A process that has the records open; ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CLAIMANT),
        url,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Claimant(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def claimants(url: str, count: int = RACERS) -> AsyncIterator[list[Claimant]]:
    """Several processes that opened the records, all at once."""
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(claimant(url)) for _ in range(count)]
        assert [await one.answer() for one in started] == ["ready"] * count
        yield started


async def test_of_many_processes_at_an_empty_database_one_gets_the_resource(url: str, make_record: MakeRecord, query: Query) -> None:
    async with claimants(url) as racers:
        for fixes_before in range(5):
            resource = f"shop-{fixes_before}"
            for number, racer in enumerate(racers):
                record = make_record(f"fix-{resource}-{number}", resource=resource)
                racer.send("open", record.model_dump_json(), str(number))
            answers = [await racer.answer() for racer in racers]
            assert sum(answers) == 1
            rows = await query("SELECT owner FROM evenkeel_fixes WHERE resource = :resource", resource=resource)
            assert rows == [(str(answers.index(True)),)]


async def test_what_a_killed_owner_left_is_taken_over_by_exactly_one(url: str, make_record: MakeRecord, query: Query) -> None:
    async with claimants(url) as (owner, *racers):
        assert await owner.ask("open", make_record().model_dump_json(), "owner")
        assert await owner.ask("begin", "fix-1", "owner", "0")
        owner.process.kill()
        await owner.process.wait()
        assert not await racers[0].ask("open", make_record("fix-2").model_dump_json(), "racer"), "the claim outlives its process"
        for number, racer in enumerate(racers):
            racer.send("abandon", "fix-1", str(number))
        answers = [await racer.answer() for racer in racers]
        assert sum(answers) == 1
        assert await query("SELECT verdict, message FROM evenkeel_fixes") == [("Abandoned", f"found by {answers.index(True)}")]
        assert await racers[0].ask("open", make_record("fix-2").model_dump_json(), "racer")
    async with await Records.open(url) as records:
        (step,) = await records.interrupted_steps("fix-1")
        assert step.tool == "redis_evict_to"


async def test_a_begun_step_and_a_takeover_exclude_each_other(url: str, make_record: MakeRecord) -> None:
    """Whichever comes first, a step that began before the takeover is journalled, and none begins after it."""
    async with claimants(url, 2) as (owner, racer), await Records.open(url) as records:
        for number in range(10):
            fix_id = f"fix-{number}"
            record = make_record(fix_id, opened_at=datetime.now(UTC))
            assert await owner.ask("open", record.model_dump_json(), "owner")
            owner.send("begin", fix_id, "owner", "0")
            racer.send("abandon", fix_id, "racer")
            begun, abandoned = await owner.answer(), await racer.answer()
            assert abandoned
            assert len(await records.interrupted_steps(fix_id)) == int(begun)
            assert not await owner.ask("begin", fix_id, "owner", "1")
            kept = await records.get(fix_id)
            assert kept is not None
            assert kept.verdict is Verdict.ABANDONED
