"""A real PostgreSQL for the tests of its probe and tools, with sessions of several applications, seen over connections of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Resource
from compose.description import LabDescription
from tasks.clients.login import Login
from tasks.clients.postgres import PostgresClient
from tasks.clients.runtime import SupervisedProcess, open_runtime

DEADLINE_SECONDS = 10.0
OPENING_AT_ONCE = 16
HOUR = 3600
Connection = AsyncConnection[tuple[Any, ...]]


@dataclass
class Session:
    """A connection, and the statement that runs on it."""

    connection: Connection
    pid: int
    running: asyncio.Task[Any] | None = None

    async def end(self) -> None:
        if self.running is not None and not self.running.done():
            with suppress(psycopg.Error):
                await self.connection.cancel_safe(timeout=2)
            await asyncio.wait({self.running}, timeout=2)
        if self.running is not None:
            await asyncio.gather(self.running, return_exceptions=True)
        await self.connection.close()


@dataclass
class DatabaseUnderTest:
    """The lab's PostgreSQL, and what a test does to it."""

    lab: LabDescription
    runtime: SupervisedProcess = field(init=False)
    _sessions: list[Session] = field(default_factory=list)
    _clients: list[PostgresClient] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runtime = SupervisedProcess(str(self.lab.control), "database")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.lab.directory / "postgres" / "data"

    def client(self, *, monitor: Login | None = None, application: Login | None = None, **fields: Any) -> PostgresClient:
        """A new client; fields are the resource's."""
        database = self.lab.database
        given = {
            "name": "db",
            "kind": Kind.POSTGRES,
            "address": f"{database.host}:{database.port}/{database.dbname}",
            "logins": {"monitor": "evenkeel_monitor", "application": "shop"},
            "runtime": ProcessRuntime(control=str(self.lab.control), service="database"),
        }
        resource = Resource(**{**given, **fields})
        client = PostgresClient(
            resource=resource,
            monitor=monitor or self.login("monitor"),
            application=application or self.login("application"),
            maintenance=self.login("maintenance"),
            runtime=open_runtime(resource.runtime),
        )
        self._clients.append(client)
        return client

    def login(self, purpose: str) -> Login:
        logins = {str(key): value for key, value in self.lab.database.logins.items()}
        return Login(logins[purpose].username, logins[purpose].password)

    async def connect(self, application_name: str = "test", user: str | None = None) -> Session:
        """A session as the application, or as a user that needs no password; it ends with the test."""
        database = self.lab.database
        login = database.logins["application"]
        connection = await AsyncConnection.connect(
            host=database.host,
            port=database.port,
            dbname=database.dbname,
            user=user or login.username,
            password=None if user else login.password,
            application_name=application_name,
            autocommit=True,
        )
        session = Session(connection, connection.info.backend_pid)
        self._sessions.append(session)
        return session

    async def run(self, session: Session, statement: LiteralString) -> None:
        """Start a statement and go on; the test's end cancels it."""
        session.running = asyncio.create_task(session.connection.execute(statement))

    async def busy(self, count: int, application_name: str, statement: LiteralString = "SELECT pg_sleep(3600)") -> list[Session]:
        """That many sessions, each seen to run the statement."""
        at_once = asyncio.Semaphore(OPENING_AT_ONCE)

        async def open_one() -> Session:
            async with at_once:
                session = await self.connect(application_name)
            await self.run(session, statement)
            return session

        sessions = await asyncio.gather(*(open_one() for _ in range(count)))
        pids = {session.pid for session in sessions}

        async def all_run() -> bool:
            return pids <= await self.pids("application_name = %s AND state = 'active'", application_name)

        await wait_until(all_run, f"{count} sessions of {application_name} run")
        return sessions

    async def idle_in_transaction(self, application_name: str, statement: LiteralString = "SELECT 1") -> Session:
        """A session that has begun a transaction and does nothing more."""
        session = await self.connect(application_name)
        await session.connection.execute("BEGIN")
        await session.connection.execute(statement)
        return session

    async def aged(self, *pids: int, seconds: float = 0.15) -> None:
        """Wait until those backends have been in their state for that long."""

        async def all_are() -> bool:
            return set(pids) <= await self.pids("clock_timestamp() - state_change > make_interval(secs => %s::float8)", str(seconds))

        await wait_until(all_are, f"{len(pids)} sessions are {seconds} s in their state")

    async def pids(self, condition: LiteralString = "true", *params: str) -> set[int]:
        """Backends, asked as the monitor over a connection apart from the client's."""
        async with await self.observer() as observer:
            query = SQL("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {}")
            cursor = await observer.execute(query.format(SQL(condition)), params)
            return {row[0] for row in await cursor.fetchall()}

    async def value(self, query: LiteralString, *params: object) -> Any:
        """The first value of a query as the monitor, over a connection of its own."""
        async with await self.observer() as observer:
            row = await (await observer.execute(query, params)).fetchone()
            return None if row is None else row[0]

    async def admin(self, *statements: LiteralString) -> None:
        """Execute statements as the superuser."""
        async with await AsyncConnection.connect(self.lab.database.conninfo("admin"), autocommit=True) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def observer(self) -> Connection:
        return await AsyncConnection.connect(self.lab.database.conninfo("monitor"), autocommit=True, application_name="observer")

    @asynccontextmanager
    async def trusting(self, user: str) -> AsyncIterator[None]:
        """Let a user in without a password, such as the superuser whom nobody knows one for."""
        access = self.data / "pg_hba.conf"
        before = access.read_text()
        access.write_text(f"host all {user} 127.0.0.1/32 trust\n{before}")
        await self.runtime.signal("SIGHUP")
        try:
            await wait_until(lambda: self._lets_in(user), f"{user} is let in")
            yield
        finally:
            access.write_text(before)
            await self.runtime.signal("SIGHUP")

    async def _lets_in(self, user: str) -> bool:
        try:
            session = await self.connect("knocking", user)
        except psycopg.OperationalError:
            return False
        await session.connection.close()
        return True

    async def end(self) -> None:
        """End every session and client, and bring the server up."""
        await asyncio.gather(*(session.end() for session in self._sessions))
        for client in self._clients:
            await client.close()
        if (await self.runtime.status()).state != "running":
            await self.runtime.start()


@asynccontextmanager
async def database_under_test(lab: LabDescription) -> AsyncIterator[DatabaseUnderTest]:
    """The server, running and without anybody's sessions, before and after."""
    database = DatabaseUnderTest(lab)

    async def is_empty() -> bool:
        return not await database.pids()

    await wait_until(is_empty, "the last test's sessions are gone")
    try:
        yield database
    finally:
        await database.end()


async def wait_until(condition: Callable[[], Awaitable[bool]], description: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {description}"
        await asyncio.sleep(0.02)
