"""Remediations as processes of their own, which a test kills at a moment of its choice."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from compose.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
T = TypeVar("T")

HEAL = """
import asyncio, sys
from flows.remediate import remediate
from tasks.planners.gemini_client import load_sdk

load_sdk()
sys.stdin.readline()
asyncio.run(remediate("shop-cache", return_state=True))
"""


async def until(what: str, look: Callable[[], Awaitable[T | None]], seconds: float = SECONDS) -> T:
    """What `look` finds, once it does."""
    deadline = time.monotonic() + seconds
    while (found := await look()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.05)
    return found


class Remediation:
    """One process that heals the cache once `begin` says so."""

    def __init__(self, plane: ControlPlane, environment: Mapping[str, str]) -> None:
        self.log = plane.directory / f"remediation-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HEAL],
                cwd=ROOT,
                env={**plane.environment, **environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def begin(self) -> None:
        """Let it heal; it has loaded what it needs, or does so first."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.close()

    def kill(self) -> None:
        """SIGKILL. It must not have ended before: then nothing was tried."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-2000:]
        self.process.kill()
        self.process.wait(SECONDS)

    async def ended(self, seconds: float = SECONDS) -> int:
        """Its exit code, once it has ended by itself."""

        async def look() -> int | None:
            return self.process.poll()

        return await until("the end of the remediation's process", look, seconds)

    def discard(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        if self.process.stdin is not None:
            self.process.stdin.close()


class Remediations:
    """The next one loads what it needs while a test is about the one before."""

    def __init__(self, plane: ControlPlane, ahead: int = 1) -> None:
        self._plane = plane
        self._all = [Remediation(plane, {}) for _ in range(ahead)]

    def next(self) -> Remediation:
        """One that has not begun."""
        self._all.append(Remediation(self._plane, {}))
        return self._all[-2]

    def special(self, environment: Mapping[str, str]) -> Remediation:
        """One with these variables besides."""
        self._all.insert(0, Remediation(self._plane, environment))
        return self._all[0]

    def end(self) -> None:
        """Leave none."""
        for one in self._all:
            one.discard()
