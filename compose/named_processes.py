"""Processes with names, below one directory: each may be killed and started again, all end together with what they started."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from compose.description import LabError
from compose.processes import Identity, boot_id, descendants, identify, is_alive, kill

PROJECT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
LOG_CHARACTERS = 2000
PART_OF = "EVENKEEL_PART_OF"
"""Variable by which what a killed process started is found: the runs of a worker, which outlive it."""

Ready = Callable[[int], Awaitable[bool]]
"""Takes a process's number; False for a server that is not there yet."""


@dataclass(frozen=True)
class Command:
    """How a process is started, and how it is found ready."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    ready: Ready | None = None
    start_seconds: float = 90.0


class NamedProcesses:
    """Started by this process, from the project's directory, with a log each: DIRECTORY/NAME.log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._commands: dict[str, Command] = {}
        self._started: dict[str, asyncio.subprocess.Process] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All that were started, in that order."""
        return tuple(self._commands)

    def log(self, name: str) -> Path:
        """Where a process writes its output."""
        return self.directory / f"{name}.log"

    def pid(self, name: str) -> int:
        """The number of a process; LabError while it does not run."""
        process = self._started.get(name)
        if process is None or process.returncode is not None:
            raise LabError(f"{name} does not run; read {self.log(name)}, and start it again")
        return process.pid

    async def start(self, name: str, command: Command | None = None) -> None:
        """Start a process and wait until it is ready; without a command, as it was started last.

        LabError where it runs already, or ends or is not ready in time: with the last lines of its log.
        """
        running = self._started.get(name)
        if running is not None and running.returncode is None:
            raise LabError(f"{name} runs already; kill it first")
        if command is None:
            command = self._commands.get(name)
            if command is None:
                raise LabError(f"{name}: nothing of that name was started; choose from {', '.join(self._commands)}")
        self._commands[name] = command
        process = await self._spawn(name, command)
        deadline = time.monotonic() + command.start_seconds
        while process.returncode is None:
            if command.ready is None or await command.ready(process.pid):
                return
            if time.monotonic() > deadline:
                raise LabError(f"{name} was not ready after {command.start_seconds:g} s; its log ends with:\n{self._log_end(name)}")
            await asyncio.sleep(POLL_SECONDS)
        raise LabError(f"{name} did not start; its log ends with:\n{self._log_end(name)}")

    async def kill(self, name: str, *, alone: bool = False) -> None:
        """SIGKILL a process and all that it started; `alone`: only itself. Returns when it is gone."""
        self.pid(name)
        process = self._started[name]
        found = identify(process.pid)
        if found is not None:
            left = await kill({found} if alone else descendants(found) | {found}, STOP_SECONDS)
            if left:
                raise LabError(f"{name}: process {min(one.pid for one in left)} can't be ended")
        await process.wait()

    async def end(self, *names: str) -> None:
        """End those that run, side by side, with all that they started."""
        await asyncio.gather(*(_end(self._started[name]) for name in names if name in self._started))

    async def end_all(self) -> None:
        """End everything, what was started last first, and what killed processes left."""
        for name in reversed(self._started):
            await self.end(name)
        self._started.clear()
        await kill(self._orphans(), STOP_SECONDS)
        self._pids.unlink(missing_ok=True)

    async def end_survivors(self) -> None:
        """End what an earlier start in this directory left behind when it was killed."""
        family = self._orphans()
        if self._pids.exists():
            for line in self._pids.read_text(encoding="ascii").splitlines():
                boot, pid, start_ticks = line.split()
                survivor = Identity(int(pid), int(start_ticks))
                if boot == boot_id() and is_alive(survivor):
                    family |= descendants(survivor) | {survivor}
        await kill(family, STOP_SECONDS)
        self._pids.unlink(missing_ok=True)

    async def _spawn(self, name: str, command: Command) -> asyncio.subprocess.Process:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command.words,
                cwd=PROJECT,
                env={**command.environment, PART_OF: self._mark},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to the whole foreground group; these are ended in order instead.
                start_new_session=True,
            )
        self._started.pop(name, None)
        self._started[name] = process
        identity = identify(process.pid)
        if identity is not None:
            with self._pids.open("a", encoding="ascii") as file:
                file.write(f"{boot_id()} {identity.pid} {identity.start_ticks}\n")
        return process

    def _orphans(self) -> set[Identity]:
        """What bears this directory's mark: not every program keeps its environment readable, so some are found by number alone."""
        mark = os.fsencode(f"{PART_OF}={self._mark}")
        return {found for pid in psutil.pids() if mark in _environment(pid) and (found := identify(pid)) is not None}

    @property
    def _mark(self) -> str:
        return str(self.directory.absolute())

    @property
    def _pids(self) -> Path:
        return self.directory / "processes.txt"

    def _log_end(self, name: str) -> str:
        return self.log(name).read_text(errors="replace")[-LOG_CHARACTERS:]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return []


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, then force it and what it started."""
    if process.returncode is not None:
        return
    found = identify(process.pid)
    started = set() if found is None else descendants(found)
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    await kill(started, STOP_SECONDS)


async def together(starting: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it side by side; the first LabError ends the rest and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in starting:
                group.create_task(one)
    except* LabError as failures:
        raise failures.exceptions[0] from None
