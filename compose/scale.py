"""The whole thing distributed, as plain processes: `python -m compose.scale --directory DIR`, or `scale_stack` for a test.

    async with scale_stack(directory, pools=("evenkeel", "berlin")) as stack:
        await stack.register(lab.inventory_path, lab.environment_path, pools={"shop-cache": "berlin"})
        await stack.deploy("lab", "berlin")
        with stack.client() as client: ...

Its parts have names, and each can be killed and started again by itself:

- `database`: PostgreSQL, with Prefect's database and that of the records
- `broker`: Redis, through which the server's parts tell each other of events, leases and work to do
- `api-1`, `api-2` ...: the replicas of the API; `services`: what the server does in the background
- `balancer`: Nginx in front of the replicas, which everybody else talks to
- `worker-POOL-1` ...: the workers of each work pool

`await stack.kill("services")` is kill -9 and returns when it is gone; `await stack.start("services")` waits until it is back.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings
from psycopg.sql import SQL, Identifier

from compose.cli import run_until_done
from compose.control_plane import WORK_POOL
from compose.description import LabDescription, LabError, free_ports, write_private
from compose.inventory import in_pools
from compose.lab import running_lab
from compose.named_processes import together
from compose.progress import console, doing
from compose.scale_plane import BALANCER, BROKER, ENVIRONMENT, SERVICES, ScalePlane
from compose.stack import Running, close_abandoned, prefect_database_url

DATABASE = "database"
RECORDS = "records"
RECORDS_URL = "EVENKEEL_RECORDS_URL"
POOL_FILE = "docs/pool.yaml"
POOLS_OF_THE_LAB = {"shop-db": "data", "shop-cache": "data"}
DATABASE_SECONDS = 30.0
SWEEP_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class ScaleStack(Running):
    """The running parts. Everything else is as with one server: it is reached through the balancer."""

    plane: ScalePlane
    records_url: str = field(repr=False)
    directory: Path

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all parts, in the order of their start."""
        return (DATABASE, *self.plane.processes.names)

    @property
    def auth(self) -> str:
        """What the API asks for, as "user:password"."""
        return self.plane.auth

    @property
    def broker_url(self) -> str:
        """The broker's address, with its password."""
        return self.plane.broker_url

    @property
    def replica_urls(self) -> tuple[str, ...]:
        """The API of each replica, past the balancer."""
        return self.plane.replica_urls

    @contextmanager
    def client(self, replica: int | None = None) -> Iterator[PrefectClient]:
        """A client of the server; of one replica alone where its number is given, from 1."""
        settings = self.plane.client_settings
        if replica is not None:
            settings |= {PREFECT_API_URL: self.replica_urls[replica - 1]}
        with temporary_settings(updates=settings):
            yield get_client()

    async def register(self, inventory_path: Path, environment_path: Path, pools: Mapping[str, str] | None = None) -> None:
        """Save an inventory with its records in PostgreSQL; `pools`: resource -> the work pool whose monitor watches it."""
        described = yaml.safe_load(inventory_path.read_text(encoding="utf-8"))
        described["records"] = {**described.get("records", {}), "url": f"${{{RECORDS_URL}}}"}
        described["resources"] = in_pools(described["resources"], pools or {})
        path, variables = self.directory / f"{described['name']}.yaml", self.directory / f"{described['name']}.env"
        write_private(path, yaml.safe_dump(described, sort_keys=False))
        write_private(variables, f"{environment_path.read_text(encoding='utf-8')}{RECORDS_URL}={self.records_url}\n")
        await self.plane.run("-m", "blocks.register", str(path), "--env-file", str(variables))

    async def deploy(self, inventory: str, pool: str, sweep_every_seconds: float = SWEEP_EVERY_SECONDS) -> None:
        """Deploy what an inventory needs in a pool that its resources name: monitor/INVENTORY-POOL, approve/POOL and so on."""
        environment = {"EVENKEEL_INVENTORY": inventory, "EVENKEEL_POOL": pool}
        await self.plane.run("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", POOL_FILE, "--all", environment=environment)
        with self.client() as client:
            async with client:
                found = await client.read_deployment_by_name(f"monitor/{inventory}-{pool}")
                parameters = {**found.parameters, "sweep_every_seconds": sweep_every_seconds}
                await client.update_deployment(found.id, DeploymentUpdate(parameters=parameters))

    def pid(self, part: str) -> int:
        """The number of a part's process, but for `database`; LabError while it does not run."""
        return self.plane.processes.pid(part)

    def log(self, part: str) -> Path:
        """Where a part writes its output."""
        return self.prefect_database.log_path(DATABASE) if part == DATABASE else self.plane.processes.log(part)

    async def kill(self, part: str, *, alone: bool = False) -> None:
        """SIGKILL a part and all that it started, a worker's runs among it; `alone`: its own process only. Returns when it is gone."""
        if part != DATABASE:
            await self.plane.processes.kill(part, alone=alone)
            return
        await self._ask_supervisor("POST", "/signal?signal=SIGKILL")
        deadline = time.monotonic() + DATABASE_SECONDS
        while (await self._ask_supervisor("GET", ""))["state"] == "running":
            if time.monotonic() > deadline:
                raise LabError(f"{part} still runs {DATABASE_SECONDS:g} s after it was killed")
            await asyncio.sleep(0.05)

    async def start(self, part: str) -> None:
        """Start a killed part as it was, and wait until it is ready. LabError shows the end of its log where it does not get ready."""
        if part == DATABASE:
            await self._ask_supervisor("POST", "/start")
        else:
            await self.plane.processes.start(part)

    async def _ask_supervisor(self, method: str, what: str) -> dict[str, Any]:
        transport = httpx.AsyncHTTPTransport(uds=str(self.prefect_database.control))
        async with httpx.AsyncClient(transport=transport, base_url="http://supervisor", timeout=DATABASE_SECONDS) as client:
            answer = await client.request(method, f"/services/{DATABASE}{what}")
        said: dict[str, Any] = answer.json()
        if answer.is_error:
            raise LabError(f"{DATABASE}: {said['error']}")
        return said


@asynccontextmanager
async def scale_stack(
    directory: Path,
    *,
    pools: Sequence[str] = (WORK_POOL,),
    api_replicas: int = 2,
    workers_per_pool: int = 1,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    server_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[ScaleStack]:
    """Bring the parts up, and down on the way out with all that they started. Nothing is registered or deployed yet.

    `port` is the balancer's; `environment` are variables of the workers, and so of the flows, `server_settings` of the server's parts.
    """
    directory = directory.absolute()
    async with AsyncExitStack() as cleanup:
        with doing("start PostgreSQL for Prefect and for the records"):
            own = await cleanup.enter_async_context(running_lab(directory / "prefect-database", ["database"]))
            records_url = await _records_database(own)
        plane = ScalePlane(
            directory,
            port or free_ports(1)[0],
            prefect_database_url(own),
            api_replicas=api_replicas,
            server_settings=server_settings or {},
            flow_environment=environment or {},
        )
        cleanup.push_async_callback(plane.stop)
        with doing(f"start {BROKER}, {api_replicas} replica(s) of the API, {SERVICES} and {BALANCER}"):
            await plane.start_server()
        running = ScaleStack(own, plane, records_url, directory)
        with doing(f"start the workers of {', '.join(pools)}"):
            await plane.make_pools(pools)
            await close_abandoned(running)
            await together(plane.start_pool_worker(pool, number) for pool in pools for number in range(1, workers_per_pool + 1))
        yield running


async def _records_database(lab: LabDescription) -> str:
    """Make the records' database beside Prefect's where it is missing; its URL, with the password."""
    application = lab.database.logins["application"]
    async with await psycopg.AsyncConnection.connect(lab.database.conninfo("admin"), autocommit=True, connect_timeout=10) as connection:
        found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (RECORDS,))
        if await found.fetchone() is None:
            making = SQL("CREATE DATABASE {} OWNER {}").format(Identifier(RECORDS), Identifier(application.username))
            await connection.execute(making)
    return lab.database.model_copy(update={"dbname": RECORDS}).conninfo("application")


async def up(directory: Path, port: int) -> int:
    """Keep lab and stack running: database and cache are watched from the pool `data`, the rest from the default one."""
    pools = sorted(set(POOLS_OF_THE_LAB.values()))
    async with AsyncExitStack() as cleanup:
        with doing("start the lab: PostgreSQL, Redis, Nginx, the shop and its traffic"):
            lab = await cleanup.enter_async_context(running_lab(directory / "lab"))
        running = await cleanup.enter_async_context(scale_stack(directory / "scale", pools=(WORK_POOL, *pools), port=port))
        with doing("register the inventory and apply the deployments"):
            await running.register(lab.inventory_path, lab.environment_path, POOLS_OF_THE_LAB)
            await running.plane.deploy()
            for pool in pools:
                await running.deploy("lab", pool)
            await _look_at_once(running, ["monitor/lab", *(f"monitor/lab-{pool}" for pool in pools)])
        console.print(
            f"\n[bold]The Prefect UI: {running.plane.ui_url}[/bold]\n"
            f"  it asks for the auth string, which is in {running.directory / ENVIRONMENT}\n"
            f"  status of the lab   {running.plane.ui_url}/v2/artifacts/key/status-lab\n"
            f"  the shop            {lab.web.url}\n"
            f"Commands of your own: set -a; . {running.directory / ENVIRONMENT}; set +a\n"
            f"Parts: {', '.join(running.parts)}; their logs are in {running.directory}\n"
            "Ctrl-C ends everything."
        )
        await asyncio.Event().wait()
    return 0


async def _look_at_once(running: ScaleStack, deployments: Sequence[str]) -> None:
    """Start monitor runs now, so that nobody waits for the schedule's next minute."""
    with running.client() as client:
        async with client:
            for name in deployments:
                deployment = await client.read_deployment_by_name(name)
                await client.create_flow_run_from_deployment(deployment.id, name=f"Watch {deployment.name}, first run")


def main() -> int:
    """Entry point of `python -m compose.scale`."""
    parser = argparse.ArgumentParser(prog="python -m compose.scale", description="A lab, and a distributed Prefect that keeps it healthy.")
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--port", type=int, default=4200, help="port of the balancer in front of the Prefect API")
    arguments = parser.parse_args()
    return run_until_done(up(arguments.directory, arguments.port))


if __name__ == "__main__":
    sys.exit(main())
