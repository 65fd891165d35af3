"""The disk of the records is full, and clocks jump: real errors of the kernel, and a clock that steps under a running process."""

import importlib.util
import math
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client

from blocks.documents import write
from blocks.records import RECORDS, RecordsBlock, load_records
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, Request, Script
from tasks import connecting
from tasks.connecting import live
from tasks.core.models import OutcomeStatus, Verdict
from tests.own_parts.remediations import Remediation, until
from tests.own_parts.scene import Scene, healed, now, run_of
from tests.scripted_gemini import planned, step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HELPS = planned(step(args={"mebibytes": 100}))
ENOUGH = 100.0
THINKING_SECONDS = 8.0
"""Three times the silence after which a remediation counts as abandoned here."""


@pytest.fixture
async def in_a_file(scene: Scene, tmp_path: Path) -> AsyncIterator[Scene]:
    """The same with the records in a file."""
    before = await load_records()
    async with get_client() as client:
        await write(client, {RECORDS: RecordsBlock.model_validate({"url": f"sqlite+aiosqlite:///{tmp_path}/records.db"})})
        token = connecting._current.set(None)
        try:
            async with live("lab") as opened:
                yield replace(scene, opened=opened)
        finally:
            connecting._current.reset(token)
            await write(client, {RECORDS: before})


def fill_disk_of(remediation: Remediation) -> None:
    """From now on each of the process's writes to a file fails, as it does on a full disk: it takes no disk, and no rights."""
    psutil.Process(remediation.process.pid).rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


async def test_with_a_full_disk_no_step_begins(in_a_file: Scene) -> None:
    scene, remediation = in_a_file, in_a_file.remediations.next()

    def full_when_asked(request: Request) -> Answer:
        if request.number == 0:
            fill_disk_of(remediation)
        return HELPS

    async with GeminiServer(full_when_asked, scene.world.model_port):
        remediation.begin()
        await remediation.ended()
        assert await scene.limits() == []
        first, second = await scene.watched(healed)
    assert (first.verdict, second.verdict, await scene.limits()) == (Verdict.ABANDONED, Verdict.COMPLETED, [ENOUGH])
    assert first.message.startswith("its process vanished before it had a plan; shop-cache is DEGRADED")
    run = await run_of(first)
    assert run.state is not None
    assert (run.state.name, "disk" in str(run.state.message)) == ("Failed", True), run.state.message
    await scene.assert_nothing_is_stuck()


async def test_a_disk_that_is_full_after_a_step_does_not_have_it_done_again(in_a_file: Scene) -> None:
    scene, remediation, cache = in_a_file, in_a_file.remediations.next(), in_a_file.cache_process()

    def stopped_when_asked(_request: Request) -> Answer:
        cache.suspend()  # so that the step takes until it is resumed
        return HELPS

    async def begun() -> bool | None:
        found = await scene.opened.records.open_fixes("lab")
        return True if found and await scene.opened.records.interrupted_steps(found[0].fix_id) else None

    async with GeminiServer(stopped_when_asked, scene.world.model_port):
        remediation.begin()
        try:
            await until("the step in the journal", begun)
            fill_disk_of(remediation)
        finally:
            cache.resume()
        await remediation.ended()
    (record,) = await scene.watched(healed)
    assert (record.verdict, await scene.limits()) == (Verdict.ABANDONED, [ENOUGH])
    assert record.message.startswith("its process vanished during redis_set_maxmemory; shop-cache is HEALTHY")
    assert [outcome.status for outcome in record.attempts[-1].outcomes] == [OutcomeStatus.OUTCOME_UNKNOWN]
    assert (await run_of(record)).state_name == "Failed"
    await scene.assert_nothing_is_stuck()


class Clock:
    """The clock of one process, which a test sets. Only the time of day: what counts from the start of the machine goes on."""

    def __init__(self, directory: Path) -> None:
        spec = importlib.util.find_spec("libfaketime")
        assert spec is not None
        assert spec.origin is not None
        self._offset = directory / "offset"
        self.jump("+0")
        self.environment = {
            "LD_PRELOAD": str(Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Set it so far from this machine's, such as -2h."""
        draft = self._offset.with_suffix(".new")
        draft.write_text(offset, encoding="ascii")
        draft.replace(self._offset)


@contextmanager
def with_a_clock(scene: Scene, clock: Clock) -> Iterator[Remediation]:
    remediation = scene.remediations.special(clock.environment)
    try:
        yield remediation
    finally:
        remediation.discard()


def jumping(clock: Clock, offset: str, first: Answer) -> Script:
    """The clock jumps while the model thinks about the first question."""

    def answer(request: Request) -> Answer:
        if request.number:
            return HELPS
        clock.jump(offset)
        return first

    return answer


@pytest.mark.parametrize("offset", ["+2h", "-2h"])
async def test_who_lives_is_not_taken_over_whatever_its_clock_says(scene: Scene, tmp_path: Path, offset: str) -> None:
    clock = Clock(tmp_path)
    script = jumping(clock, offset, replace(HELPS, wait_seconds=THINKING_SECONDS))
    with with_a_clock(scene, clock) as remediation:
        async with GeminiServer(script, scene.world.model_port) as model:
            remediation.begin()
            await until("the question", lambda: asked(model))
            records = await scene.watched(healed)
        assert await remediation.ended() == 0
    assert [record.verdict for record in records] == [Verdict.COMPLETED]
    closed_at = records[0].closed_at
    assert closed_at is not None
    assert abs(closed_at - now()) > timedelta(hours=1), "the clock did not jump"
    assert await scene.limits() == [ENOUGH]
    assert (await run_of(records[0])).state_name == "Completed"
    await scene.assert_nothing_is_stuck()


async def test_who_is_dead_is_taken_over_whatever_its_clock_said(scene: Scene, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with with_a_clock(scene, clock) as remediation:
        async with GeminiServer(jumping(clock, "+2h", Answer({}, wait_seconds=math.inf)), scene.world.model_port):
            remediation.begin()
            await until("a heartbeat of tomorrow", lambda: heard_from_the_future(scene))
            remediation.kill()
            first, second = await scene.watched(healed)
    assert (first.verdict, second.verdict, await scene.limits()) == (Verdict.ABANDONED, Verdict.COMPLETED, [ENOUGH])
    assert (await run_of(first)).state_name == "Crashed"
    await scene.assert_nothing_is_stuck()


async def asked(model: GeminiServer) -> bool | None:
    return True if model.requests else None


async def heard_from_the_future(scene: Scene) -> bool | None:
    found = await scene.opened.records.open_fixes("lab")
    return True if found and found[0].heartbeat_at > now() + timedelta(hours=1) else None
