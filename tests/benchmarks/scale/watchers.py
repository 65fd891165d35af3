"""Monitors in processes of their own, from the outside: started together, stepped, looked at, and ended."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from compose.description import LabError
from compose.named_processes import PROJECT
from tasks.core.parts import Share
from tasks.records.repository import Records
from tests.benchmarks.scale.place import Place

SHARDS = ("a", "b", "c", "d")
EVENT_SECONDS = 300.0
END_SECONDS = 60.0
LINE_BYTES = 2**20


class Watcher:
    """One monitor's process."""

    def __init__(self, share: Share, process: asyncio.subprocess.Process, log: Path) -> None:
        self.share = share
        self.process = process
        self._log = log

    async def event(self, kind: str, seconds: float = EVENT_SECONDS) -> dict[str, Any]:
        """The next event of that kind; LabError with the log's end where the process is gone, or the time over."""
        if self.process.stdout is None:
            raise LabError("a monitor was started without a pipe")
        try:
            async with asyncio.timeout(seconds):
                while line := await self.process.stdout.readline():
                    found: dict[str, Any] = json.loads(line)
                    if found["event"] == kind:
                        return found
        except TimeoutError:
            raise LabError(f"shard {self.share.shard}: no {kind!r} within {seconds:g} s; {self._end_of_log()}") from None
        raise LabError(f"shard {self.share.shard} ended before {kind!r}; {self._end_of_log()}")

    async def step(self) -> None:
        """Let it sweep. One that is gone shows by the event that does not come."""
        if self.process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self.process.stdin.write(b"go\n")
                await self.process.stdin.drain()

    def cpu_seconds(self) -> float:
        """User and system time since its start."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def resident_mib(self) -> float:
        """Memory that it has now."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def _end_of_log(self) -> str:
        return f"its log ends with:\n{self._log.read_text(errors='replace')[-1500:]}"


@asynccontextmanager
async def watching(
    place: Place, inventory: str, monitors: int, every_seconds: float, *, in_step: bool = False
) -> AsyncIterator[list[Watcher]]:
    """So many monitors that share an inventory; what does not end by itself is killed on the way out."""
    shares = [Share(inventory=inventory, shard=shard) for shard in SHARDS[:monitors]]
    started: list[Watcher] = []
    try:
        await _swept_before(place, shares)
        for share in shares:
            shard, log = share.shard, place.plane.directory / f"{inventory}-{share.shard}.log"
            words = (inventory, shard, str(every_seconds), *(["--in-step"] if in_step else []))
            started.append(Watcher(share, await _spawn(place, words, log), log))
        yield started
    finally:
        for watcher in started:
            if watcher.process.returncode is None:
                watcher.process.kill()
        await asyncio.gather(*(watcher.process.wait() for watcher in started))


async def _swept_before(place: Place, shares: Sequence[Share]) -> None:
    """As if there had been runs before, as there are but once: each knows of the others from its start, and watches its own part alone."""
    async with await Records.open(place.records_url) as records:
        for share in shares:
            await records.take_over_monitor(share.key, "the run before", datetime.now(UTC))
            await records.monitor_swept(share.key, "the run before", datetime.now(UTC))


async def _spawn(place: Place, words: Sequence[str], log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.benchmarks.scale.watcher",
            *words,
            cwd=PROJECT,
            env=place.plane.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_BYTES,
        )


async def release(place: Place, watchers: Sequence[Watcher]) -> None:
    """Let the sweep that they are at, or the next, be their last."""
    async with await Records.open(place.records_url) as records:
        for watcher in watchers:
            await records.release_monitor(watcher.share.key, datetime.now(UTC))


async def ended(watchers: Sequence[Watcher]) -> list[dict[str, Any]]:
    """How each ended, once it has; LabError where one did not end well, or not in time."""
    found = list(await asyncio.gather(*(watcher.event("ended", END_SECONDS) for watcher in watchers)))
    for one in found:
        if not one["is_completed"]:
            raise LabError(f"a monitor ended badly: {one['message']}")
    return found
