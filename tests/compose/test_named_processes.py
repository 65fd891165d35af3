"""Processes that are killed and started by name, and what is left of them."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from compose.description import LabError
from compose.named_processes import PART_OF, Command, NamedProcesses, together

# A server, and below it something that it started.
FAMILY = ("sh", "-c", "sleep 300 & exec sleep 301")


def command(*words: str, is_ready: bool = True) -> Command:
    async def ready(_pid: int) -> bool:
        return is_ready

    return Command(words, dict(os.environ), ready, start_seconds=20)


def marked(directory: Path) -> list[int]:
    """Processes of this directory, as the kernel tells them."""
    mark = f"{PART_OF}={directory}".encode()
    found = []
    for pid in psutil.pids():
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return found


async def test_a_process_is_killed_and_started_by_its_name(tmp_path: Path) -> None:
    processes = NamedProcesses(tmp_path)
    await processes.start("server", command(*FAMILY))
    await processes.start("other", command("sleep", "300"))
    assert processes.names == ("server", "other")
    first = processes.pid("server")
    with pytest.raises(LabError, match="server runs already; kill it first"):
        await processes.start("server")
    await processes.kill("server")
    assert marked(tmp_path) == [processes.pid("other")]
    with pytest.raises(LabError, match="server does not run"):
        processes.pid("server")
    await processes.start("server")
    assert processes.pid("server") != first
    await processes.end("server")
    await processes.end_all()
    assert marked(tmp_path) == []


async def test_what_a_killed_process_started_ends_with_the_rest(tmp_path: Path) -> None:
    processes = NamedProcesses(tmp_path)
    await processes.start("worker", command(*FAMILY))
    await processes.kill("worker", alone=True)
    assert len(marked(tmp_path)) == 1
    await processes.end_all()
    assert marked(tmp_path) == []
    await processes.start("worker", command(*FAMILY))
    await NamedProcesses(tmp_path).end_survivors()
    assert marked(tmp_path) == []
    await processes.end_all()


async def test_one_that_does_not_start_tells_its_last_words(tmp_path: Path) -> None:
    processes = NamedProcesses(tmp_path)
    with pytest.raises(LabError, match=r"server did not start; its log ends with:\nno such port"):
        await together([processes.start("server", command("sh", "-c", "echo no such port; exit 3", is_ready=False)), asyncio.sleep(30)])
    with pytest.raises(LabError, match="nothing of that name was started; choose from server"):
        await processes.start("services")
    late = Command(("sleep", "300"), dict(os.environ), lambda _pid: asyncio.sleep(0, result=False), start_seconds=0.2)
    with pytest.raises(LabError, match=r"late was not ready after 0\.2 s"):
        await processes.start("late", late)
    await processes.end_all()
    assert marked(tmp_path) == []
