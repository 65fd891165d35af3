"""The parts of a distributed Prefect server as plain processes: broker, replicas of the API, background services, balancer, workers."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from compose.balancer import balancer
from compose.broker import broker, broker_settings, broker_url
from compose.control_plane import SERVER_SECONDS, ControlPlane
from compose.description import HOST, LabError, free_ports, write_private
from compose.named_processes import Command, together
from compose.new_lab import new_login

BALANCER, BROKER, SERVICES = "balancer", "broker", "services"
ENVIRONMENT = "client.env"
AUTH = "PREFECT_API_AUTH_STRING"


class ScalePlane(ControlPlane):
    """The same server in parts, reached through the balancer, and a worker or several for each work pool.

    `auth` ("user:password") is asked of everybody; `server_settings` are variables of the server's parts besides, `flow_environment`
    of the workers and so of the flows.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        database_url: str,
        *,
        api_replicas: int,
        server_settings: Mapping[str, str],
        flow_environment: Mapping[str, str],
    ) -> None:
        super().__init__(directory, port, database_url, server_settings)
        self.auth = _auth(directory / ENVIRONMENT)
        self._broker_login = new_login("prefect")
        self._broker_port, *self._replica_ports = free_ports(1 + api_replicas)
        self.broker_url = broker_url(HOST, self._broker_port, self._broker_login)
        self._flow_environment = dict(flow_environment)

    @property
    def replica_urls(self) -> tuple[str, ...]:
        """The API of each replica, past the balancer."""
        return tuple(f"http://{HOST}:{port}/api" for port in self._replica_ports)

    @property
    def environment(self) -> dict[str, str]:
        """With the auth string: a variable, for arguments are for all to read."""
        return {**super().environment, AUTH: self.auth}

    @property
    def client_settings(self) -> dict[Any, Any]:
        """With the auth string."""
        # Needed here alone, and not quick to import.
        from prefect.settings import PREFECT_API_AUTH_STRING

        return {**super().client_settings, PREFECT_API_AUTH_STRING: self.auth}

    @property
    def server_settings(self) -> dict[str, str]:
        """The same of every part of the server."""
        return {
            **super().server_settings,
            **broker_settings(self.broker_url),
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_UI_API_URL": self.api_url,
            **self._server_settings,
        }

    async def start_server(self) -> None:
        """Start broker, replicas, services and balancer; LabError shows the last lines of what does not come up."""
        await self.processes.end_survivors()
        write_private(self.directory / ENVIRONMENT, f"PREFECT_API_URL={self.api_url}\n{AUTH}={self.auth}\n")
        await self.processes.start(BROKER, broker(self.directory / BROKER, self._broker_port, self._broker_login))
        # The first one makes the tables, which is no work for two at once.
        replicas = {f"api-{number}": self.server(port, "--no-services") for number, port in enumerate(self._replica_ports, start=1)}
        await self.processes.start("api-1", replicas.pop("api-1"))
        services = self.prefect(("server", "services", "start"), self.server_settings, self._is_connected)
        beside = {**replicas, SERVICES: services, BALANCER: balancer(self.directory / BALANCER, self._port, self._replica_ports)}
        await together(self.processes.start(name, command) for name, command in beside.items())

    async def make_pools(self, pools: Sequence[str]) -> None:
        """Make work pools whose workers start a process for each run."""
        # Needed here alone, and not quick to import.
        from prefect.settings import temporary_settings

        from blocks.work_pool import job_variables, save_work_pool

        with temporary_settings(updates=self.client_settings):
            for pool in pools:
                await save_work_pool("process", pool, job_variables("process"))

    async def start_pool_worker(self, pool: str, number: int) -> None:
        """Start a worker of a pool, and wait until the server knows it."""
        name = f"{pool}-{number}"
        words = ("worker", "start", "--pool", pool, "--name", name, "--type", "process")
        command = self.prefect(words, self._flow_environment)
        await self.processes.start(
            f"worker-{name}", Command(command.words, command.environment, lambda pid: self._is_known(pool, name, pid), SERVER_SECONDS)
        )

    async def stop(self) -> None:
        """End the workers, then all the rest, with everything that they started."""
        names = self.processes.names
        await self.processes.end(*(name for name in names if name.startswith("worker-")))
        await self.processes.end(*(name for name in names if name != BROKER))
        await super().stop()

    async def _is_connected(self, pid: int) -> bool:
        """Whether a process is connected to the broker: background services serve no port."""
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            return False
        return any(one.raddr and one.raddr.port == self._broker_port and one.status == psutil.CONN_ESTABLISHED for one in connections)

    async def _is_known(self, pool: str, worker: str, pid: int) -> bool:
        """Whether the server has heard of a worker since its process began: one that was killed is taken for online for a while."""
        try:
            began = datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)
        except psutil.NoSuchProcess:
            return False
        username, _, password = self.auth.partition(":")
        async with httpx.AsyncClient(trust_env=False, timeout=5, auth=(username, password)) as client:
            try:
                answer = (await client.post(f"{self.api_url}/work_pools/{pool}/workers/filter", json={})).raise_for_status()
            except httpx.HTTPError:
                return False
        heard = {one["name"]: datetime.fromisoformat(one["last_heartbeat_time"]) for one in answer.json()}
        return worker in heard and heard[worker] > began


def _auth(path: Path) -> str:
    """The auth string of a directory: made once, kept in a file that its owner alone may read."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name == AUTH and value:
                return value
        raise LabError(f"{path}: no {AUTH} in it; remove the file, and a new one is made")
    return f"evenkeel:{secrets.token_urlsafe(24)}"
