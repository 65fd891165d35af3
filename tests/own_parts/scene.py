"""What the tests of faults of its own parts share: where a remediation is held, how it is killed, and who says what it has done."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import temporary_settings

from compose.control_plane import WORK_POOL, ControlPlane
from compose.description import HOST, LabDescription
from compose.inventory import APPLICATION_PASSWORD
from flows.monitor import monitor
from tasks.connecting import Live
from tasks.core.models import FixRecord, Health
from tests.flows.cache_fault import connect
from tests.own_parts.remediations import ROOT, SECONDS, Remediations, until

LOCK = 4711
DEPLOYED = {("flows.monitor.monitor", "lab"), ("flows.remediate.remediate", "by-hand"), ("flows.approve.approve", "by-hand")}
MIB = 2**20
UNDER_WAY = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
T = TypeVar("T")


def registration(lab: LabDescription, directory: Path) -> Path:
    """An inventory of the lab's cache alone, with the records in the lab's database."""
    data = yaml.safe_load(lab.inventory_path.read_text(encoding="utf-8"))
    data["resources"] = [one for one in data["resources"] if one["name"] == "shop-cache"]
    data["rules"] |= {"settle_seconds": 0, "recover_seconds": 1, "escalation_pause_seconds": 0}
    database = lab.database
    user = f"{database.logins['application'].username}:${{{APPLICATION_PASSWORD}}}"
    data["records"] = {"url": f"postgresql://{user}@{database.host}:{database.port}/{database.dbname}"}
    path = directory / "inventory.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


async def deploy(plane: ControlPlane) -> None:
    """The deployments that are needed here, and no schedule: nothing is to start a monitor before a test does."""
    data = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    data["deployments"] = [one for one in data["deployments"] if (one["entrypoint"], one["name"]) in DEPLOYED]
    path = plane.directory / "prefect.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    await plane.run("-m", "blocks.work_pool", "process", "--name", WORK_POOL)
    await plane.run("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(path), "--all")
    with temporary_settings(updates=plane.client_settings):
        async with get_client() as client:
            for deployment in await client.read_deployments():
                for schedule in deployment.schedules:
                    await client.update_deployment_schedule(deployment.id, schedule.id, active=False)


@dataclass(frozen=True)
class World:
    """What runs: everything in it may be killed."""

    lab: LabDescription
    prefect_database: LabDescription
    plane: ControlPlane
    runner: asyncio.Runner | None
    """With the loop that the control plane's processes belong to; none: the test's own."""
    model_port: int
    """Where the inventory expects Gemini."""

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the control plane's processes, in the loop that they belong to."""
        return await (work if self.runner is None else asyncio.to_thread(self.runner.run, work))


@dataclass(frozen=True)
class Held:
    """A change of the records that does not get done before it is let go: its process waits as it would for a slow database."""

    table: str
    event: str
    when: str
    """Condition on the row, in PostgreSQL's words."""

    @asynccontextmanager
    async def on(self, lab: LabDescription) -> AsyncIterator["Hold"]:
        """Hold it from now on; everything goes on when the block ends."""
        async with await psycopg.AsyncConnection.connect(lab.database.conninfo("application"), autocommit=True) as connection:
            await connection.execute(
                "CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$"
            )
            await connection.execute(f"SELECT pg_advisory_lock({LOCK})")
            trigger = f"AFTER {self.event} ON {self.table} FOR EACH ROW WHEN ({self.when}) EXECUTE FUNCTION hold()"
            await connection.execute(f"CREATE TRIGGER hold {trigger}".encode())
            hold = Hold(connection, self.table)
            try:
                yield hold
            finally:
                await hold.let_go()


class Hold:
    """What is held."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], table: str) -> None:
        self._connection = connection
        self._table = table
        self._is_on = True

    async def reached(self) -> None:
        """Return when somebody waits."""

        async def look() -> bool | None:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            row = await (await self._connection.execute(waiting, (LOCK,))).fetchone()
            return True if row is not None and row[0] else None

        await until("the change that is held", look)

    async def let_go(self) -> None:
        """Let whoever waits go on, and nobody wait any more."""
        if self._is_on:
            self._is_on = False
            await self._connection.execute(f"SELECT pg_advisory_unlock({LOCK})")
            await self._connection.execute(f"DROP TRIGGER hold ON {self._table}".encode())


async def forget_what_was_said(lab: LabDescription) -> None:
    """Have the cache's server log every command from now on; its log is what says what was done to it, and how often."""
    async with connect(lab) as redis:
        await redis.config_set("slowlog-max-len", 20_000)
        await redis.config_set("slowlog-log-slower-than", 0)
        await redis.slowlog_reset()


@dataclass(frozen=True)
class Scene:
    """A full cache, and everything that it takes to look at what becomes of it."""

    world: World
    opened: Live
    remediations: Remediations
    since: datetime

    async def limits(self) -> list[float]:
        """The memory limits that the cache was given, in MiB, oldest first, as its server has logged them."""
        async with connect(self.world.lab) as redis:
            said = [entry["command"].decode().split() for entry in await redis.slowlog_get(20_000)]
        changes = [words for words in said if [word.lower() for word in words[:3]] == ["config", "set", "maxmemory"]]
        return [round(int(words[3]) / MIB, 2) for words in reversed(changes)]

    def cache_process(self) -> psutil.Process:
        """The cache's server."""
        listening = (HOST, self.world.lab.cache.port)
        return next(psutil.Process(one.pid) for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr == listening)

    async def records(self) -> list[FixRecord]:
        """The fixes of this test, oldest first."""
        return (await self.opened.records.history(inventory="lab", since=self.since, limit=20))[::-1]

    async def is_healthy(self) -> bool:
        """By figures of the server itself."""
        async with connect(self.world.lab) as redis:
            memory = await redis.info("memory")
        return bool(memory["used_memory"] < 0.9 * memory["maxmemory"])

    async def watched(self, done: Callable[[list[FixRecord]], bool], seconds: float = SECONDS) -> list[FixRecord]:
        """Have a monitor watch until its sweeps and remediations have brought about what is waited for; all fixes, oldest first."""
        watching = asyncio.create_task(monitor("lab", 0.5, 2 * seconds))

        async def look() -> list[FixRecord] | None:
            if watching.done():
                watching.result()
            found = await self.records()
            return found if found and all(one.verdict is not None for one in found) and done(found) else None

        try:
            return await until("what the monitor is to bring about", look, seconds)
        finally:
            await self.opened.records.release_monitor("lab", datetime.now(UTC))
            await watching

    async def assert_nothing_is_stuck(self) -> None:
        """No fix without an owner, no run without a process, no lock, no transaction."""
        assert await self.opened.records.open_fixes("lab") == []
        await until("the end of every run", self._no_run_under_way)
        await until("the end of every lock", self._no_lock)

    async def _no_run_under_way(self) -> bool | None:
        return True if not await runs_under_way() else None

    async def _no_lock(self) -> bool | None:
        held = (
            "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' OR NOT granted)"
            " + (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%')"
        )
        async with await psycopg.AsyncConnection.connect(self.world.lab.database.conninfo("admin")) as connection:
            row = await (await connection.execute(held)).fetchone()
        return True if row == (0,) else None


async def runs_under_way() -> list[FlowRun]:
    """Flow runs that Prefect takes to have a process."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNDER_WAY))
    async with get_client() as client:
        return await client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))


async def run_of(record: FixRecord) -> FlowRun:
    """The flow run of a fix."""
    async with get_client() as client:
        return await client.read_flow_run(record.flow_run_id)  # type: ignore[arg-type]


def healed(records: list[FixRecord]) -> bool:
    """Whether the last fix ended with a healthy resource."""
    return records[-1].after is not None and records[-1].after.health is Health.HEALTHY


def now() -> datetime:
    """The time of day here."""
    return datetime.now(UTC)
