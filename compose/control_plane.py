"""Prefect's server and worker as plain processes beside the lab, with the settings that were measured fastest."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compose.description import HOST, LabError
from compose.named_processes import PROJECT, Command, NamedProcesses, Ready
from compose.service import answers_well

WORK_POOL = "evenkeel"
SERVER_SECONDS = 90.0
COMMAND_SECONDS = 90.0

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
WORKER_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    # Prefect's server answers 500 while its database or its broker is away. What runs asks again for a minute, and need not crash for it.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
}


class ControlPlane:
    """One Prefect server and one worker, below a directory; started and ended by this process.

    The server keeps its data at `database_url`. PostgreSQL measured fastest: with SQLite two writers at once end in "database is
    locked", and the client tries again two seconds later, which is longer than a whole remediation. `server_settings` are variables for the
    server besides.
    """

    def __init__(self, directory: Path, port: int, database_url: str, server_settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.ui_url = f"http://{HOST}:{port}"
        self.api_url = f"{self.ui_url}/api"
        self.processes = NamedProcesses(directory)
        self._port = port
        self._database_url = database_url
        self._server_settings = dict(server_settings or {})

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this control plane is started with; the database's password is the server's alone."""
        return {
            **os.environ,
            **SERVER_SETTINGS,
            **WORKER_SETTINGS,
            "PREFECT_HOME": str(self.directory / "prefect"),
            "PREFECT_API_URL": self.api_url,
            "EVENKEEL_POOL": WORK_POOL,
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def client_settings(self) -> dict[Any, Any]:
        """Prefect's settings with which this process is a client of the server, whatever server the user's profile names."""
        # Needed here alone, and not quick to import.
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME

        return {PREFECT_API_URL: self.api_url, PREFECT_HOME: Path(self.environment["PREFECT_HOME"])}

    async def start_server(self) -> None:
        """Start the server and wait until it answers; LabError shows its last lines where it does not."""
        await self.processes.end_survivors()
        await self.processes.start("server", self.server(self._port))

    def server(self, port: int, *options: str) -> Command:
        """The command of a server on that port of the loopback."""
        words = ("server", "start", "--host", HOST, "--port", str(port), *options)
        return self.prefect(words, self.server_settings, lambda _pid: answers_well(HOST, port, "/api/health"))

    @property
    def server_settings(self) -> dict[str, str]:
        """What the server alone is told."""
        return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self._database_url, **self._server_settings}

    def prefect(self, words: tuple[str, ...], settings: Mapping[str, str], ready: Ready | None = None) -> Command:
        """A command of Prefect's with these variables besides."""
        return Command((sys.executable, "-m", "prefect", *words), {**self.environment, **settings}, ready, SERVER_SECONDS)

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run `python ARGUMENTS` against the server, with these variables besides, and answer its output; LabError where it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=PROJECT,
            env={**self.environment, **(environment or {})},
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
        await self.run("-m", "blocks.work_pool", "process", "--name", WORK_POOL)
        await self.run("-m", "prefect", "--no-prompt", "deploy", "--all")

    async def start_worker(self, environment: Mapping[str, str]) -> None:
        """Start the worker that runs the flows; they have these variables besides."""
        await self.processes.start("worker", self.prefect(("worker", "start", "--pool", WORK_POOL, "--name", "lab"), environment))

    async def stop(self) -> None:
        """End worker and server with everything that they started."""
        await self.processes.end_all()

    async def end_survivors(self) -> None:
        """End what an earlier start in this directory left behind when it was killed."""
        await self.processes.end_survivors()
