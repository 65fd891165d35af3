"""One service under the supervisor: its process, its state, and what may be done to it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compose.processes import POLL_SECONDS, Identity, end, identify, kill, send, traced
from compose.service import Service, clean_environment

TAIL_BYTES = 1 << 20


class WrongState(Exception):
    """The service is not in a state in which this can be done; nothing was done."""


class ServiceFailed(Exception):
    """The service did not start, or did not stop."""


@dataclass
class _Run:
    """One start of the service."""

    process: asyncio.subprocess.Process
    identity: Identity
    started_at: float


class SupervisedService:
    """Starts, stops and signals one service; one change at a time.

    A service that ends by itself stays as it is: to notice and to heal that is others' work.
    """

    def __init__(self, service: Service, changed: Callable[[], None]) -> None:
        self.service = service
        self._changed = changed
        self._run: _Run | None = None
        self._stopped = True
        self._starts = 0
        self._changing = asyncio.Lock()

    @property
    def main(self) -> Identity | None:
        """The main process of the last start, which may have ended."""
        return None if self._run is None else self._run.identity

    @property
    def state(self) -> str:
        """running, stopped (never started, or stopped on request) or exited (ended by itself)."""
        if self._run is not None and self._run.process.returncode is None:
            return "running"
        return "stopped" if self._stopped else "exited"

    def status(self) -> dict[str, Any]:
        """`pid` and `started_at` (epoch seconds) while it runs; `exit_code` of the last end, negative for a signal."""
        run, state = self._run, self.state
        return {
            "name": self.service.name,
            "state": state,
            "pid": run.identity.pid if run and state == "running" else None,
            "started_at": run.started_at if run and state == "running" else None,
            "exit_code": run.process.returncode if run else None,
            "starts": self._starts,
        }

    async def start(self) -> None:
        """Start and wait until ready. WrongState while it runs, ServiceFailed when it does not get ready."""
        async with self._changing:
            if self.state == "running":
                raise WrongState(f"{self.service.name} runs already")
            await self._start()

    async def stop(self) -> None:
        """Stop in the service's own way, then by force. WrongState unless it runs."""
        async with self._changing:
            self._require_running()
            await self._stop()

    async def restart(self) -> None:
        """Stop if it runs, start, and wait until ready. ServiceFailed when that does not happen."""
        async with self._changing:
            if self.state == "running":
                await self._stop()
            await self._start()

    def signal(self, number: signal.Signals) -> None:
        """Signal the main process. WrongState unless it runs."""
        run = self._require_running()
        if not send(run.identity, number):
            raise WrongState(f"{self.service.name} is just ending")

    async def end(self) -> None:
        """Leave nothing of the service behind, whatever its state."""
        async with self._changing:
            if self.state == "running":
                await self._stop()
            await self._end_strays()

    def log(self, lines: int) -> list[str]:
        """The last lines of the log, of its last MiB at most. Blocks."""
        try:
            with self.service.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                text = file.read(TAIL_BYTES).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-lines:]

    def _require_running(self) -> _Run:
        if self._run is None or self.state != "running":
            raise WrongState(f"{self.service.name} does not run: it is {self.state}")
        return self._run

    async def _start(self) -> None:
        service = self.service
        # Nginx's workers outlive a killed master and keep its port; a backend keeps PostgreSQL's shared memory.
        await self._end_strays()
        with service.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *service.command,
                cwd=service.directory,
                env=clean_environment(service.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # One that has ended already is nobody's: no process starts at tick 0.
        identity = identify(process.pid) or Identity(process.pid, start_ticks=0)
        self._run = _Run(process, identity, time.time())
        self._stopped = False
        self._starts += 1
        self._changed()
        try:
            async with asyncio.timeout(service.start_seconds):
                while not await service.ready(process.pid):
                    if process.returncode is not None:
                        raise ServiceFailed(f"{service.name} ended with exit code {process.returncode}; read {service.log}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            await self._stop()
            raise ServiceFailed(f"{service.name} was not ready within {service.start_seconds:g} s; read {service.log}") from error

    async def _stop(self) -> None:
        run = self._require_running()
        left = await end(run.identity, self.service.trace, self.service.stop_signals)
        if left:
            raise ServiceFailed(f"{self.service.name}: process {min(left, key=lambda one: one.pid).pid} can't be ended")
        await run.process.wait()
        self._stopped = True
        self._changed()

    async def _end_strays(self) -> None:
        strays = await asyncio.to_thread(traced, self.service.trace)
        left = await kill(strays)
        if left:
            raise ServiceFailed(f"{self.service.name}: process {min(left, key=lambda one: one.pid).pid} can't be ended")
