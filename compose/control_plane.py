"""Prefect's server and worker as plain processes beside the lab, with the settings that were measured fastest."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from compose.description import HOST, LabError
from compose.processes import Identity, boot_id, descendants, identify, is_alive, send, wait_gone

PROJECT = Path(__file__).resolve().parent.parent
WORK_POOL = "evenkeel"
SERVER_SECONDS = 90.0
COMMAND_SECONDS = 90.0
STOP_SECONDS = 10.0

# The server's defaults write each task run by itself.
SERVER_SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(14 * 24 * 3600),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}
WORKER_SETTINGS = {"PREFECT_WORKER_QUERY_SECONDS": "0.5"}


class ControlPlane:
    """One Prefect server and one worker, below a directory; started and ended by this process.

    The server keeps its data at `database_url`. PostgreSQL measured fastest: with SQLite two writers at once end in "database is
    locked", and the client tries again two seconds later, which is longer than a whole remediation.
    """

    def __init__(self, directory: Path, port: int, database_url: str) -> None:
        self.directory = directory
        self.ui_url = f"http://{HOST}:{port}"
        self.api_url = f"{self.ui_url}/api"
        self._port = port
        self._database_url = database_url
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this control plane is started with; the database's password is the server's alone."""
        return {
            **os.environ,
            **SERVER_SETTINGS,
            **WORKER_SETTINGS,
            "PREFECT_HOME": str(self.directory / "prefect"),
            "PREFECT_API_URL": self.api_url,
            "EVENKEEL_PYTHON": sys.executable,
            "PYTHONUNBUFFERED": "1",
        }

    async def start_server(self) -> None:
        """Start the server and wait until it answers; LabError shows its last lines where it does not."""
        await self.end_survivors()
        database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self._database_url}
        await self._spawn("server", database, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self._port))
        server = self._processes[-1]
        deadline = time.monotonic() + SERVER_SECONDS
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while time.monotonic() < deadline and server.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.api_url}/health")).is_success:
                        return
                await asyncio.sleep(0.1)
        raise LabError(f"Prefect's server did not start; its log ends with:\n{self._log_end('server')}")

    async def run(self, *arguments: str) -> str:
        """Run `python ARGUMENTS` against the server and answer its output; LabError where it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=PROJECT,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if process.returncode:
            raise LabError(f"python {' '.join(arguments)} ended with {process.returncode}:\n{text[-2000:]}")
        return text

    async def deploy(self) -> None:
        """Make the work pool and apply prefect.yaml."""
        await self.run("-m", "prefect", "work-pool", "create", WORK_POOL, "--type", "process", "--overwrite")
        await self.run("-m", "prefect", "--no-prompt", "deploy", "--all")

    async def start_worker(self, environment: Mapping[str, str]) -> None:
        """Start the worker that runs the flows; they have these variables besides."""
        await self._spawn("worker", environment, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--name", "lab")

    async def stop(self) -> None:
        """End worker and server with everything that they started."""
        for process in reversed(self._processes):
            if process.returncode is None:
                await _end(process)
        self._processes.clear()
        self._pids.unlink(missing_ok=True)

    async def _spawn(self, name: str, settings: Mapping[str, str], *arguments: str) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                cwd=PROJECT,
                env={**self.environment, **settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to the whole foreground group; these are ended in order instead.
                start_new_session=True,
            )
        self._processes.append(process)
        identity = identify(process.pid)
        if identity is not None:
            with self._pids.open("a", encoding="ascii") as file:
                file.write(f"{boot_id()} {identity.pid} {identity.start_ticks}\n")

    @property
    def _pids(self) -> Path:
        return self.directory / "processes.txt"

    async def end_survivors(self) -> None:
        """End what an earlier start in this directory left behind when it was killed."""
        if not self._pids.exists():
            return
        for line in self._pids.read_text(encoding="ascii").splitlines():
            boot, pid, start_ticks = line.split()
            survivor = Identity(int(pid), int(start_ticks))
            if boot == boot_id() and is_alive(survivor):
                family = descendants(survivor) | {survivor}
                for member in family:
                    send(member, signal.SIGKILL)
                await wait_gone(family, STOP_SECONDS)
        self._pids.unlink()

    def _log_end(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]


async def _end(process: asyncio.subprocess.Process) -> None:
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
