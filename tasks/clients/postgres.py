"""A ready client for one PostgreSQL server."""

import asyncio
import contextlib
import os
import re
import select
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.rows import AsyncRowFactory, dict_row, tuple_row
from psycopg.sql import SQL, Composed
from pydantic import JsonValue

from blocks.schema import Resource
from tasks.clients.login import Login
from tasks.clients.postgres_activity import APPLICATION_NAME
from tasks.clients.postgres_scans import ScanHistory
from tasks.clients.postgres_silence import NoAnswer, Reason, reason_of
from tasks.clients.runtime import Runtime
from tasks.clients.sharing import Shared
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

ANSWER_SECONDS = 1.0
QUEUE_SECONDS = 2.0
CUT_SECONDS = 1.0
# Less than `change` waits, so that the server gives up first and says so.
STATEMENT_TIMEOUT = "-c statement_timeout=2s"

# Where it failed is said already.
_WHERE = re.compile(r'^connection failed: (connection to server at "[^"]*"( \([^)]*\))?, port \d+ failed: )?')

Query = LiteralString | SQL | Composed
Params = Mapping[str, Any]
Row = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class PostgresClient:
    """A persistent monitoring connection, and fresh connections as the application.

    The monitoring role gets in through `reserved_connections` when the application's connections are used up. Safe for concurrent use
    in one event loop: statements take turns on the one connection, which is opened when it is needed and again when it broke.
    """

    resource: Resource
    monitor: Login
    application: Login | None = None
    runtime: Runtime | None = None
    maintenance: Login | None = None
    _kept: AsyncConnection[Row] | None = field(default=None, init=False, repr=False)
    _turns: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    measured: Shared[dict[str, JsonValue]] = field(default_factory=Shared, init=False, repr=False)
    """The readings of the server, for all resources that share this client: measuring must not use up its connections."""
    scans: ScanHistory = field(default_factory=ScanHistory, init=False, repr=False)
    """Earlier counts of scans, from which the probe tells their rate."""

    async def ask(self, query: Query, params: Params | None = None, *, seconds: float = ANSWER_SECONDS) -> list[Row]:
        """Rows of a statement that changes nothing, within `seconds` once it is its turn.

        Raises NoAnswer with the reason; TimeoutError when the connection was busy for too long, which says nothing about the server.
        """
        async with self._turn():
            deadline = _now() + seconds
            for is_last in (False, True):
                connection = await self._connected(deadline)
                try:
                    return await _rows(connection, query, params, deadline - _now())
                except TimeoutError:
                    raise NoAnswer(Reason.TIMEOUT, f"{self.resource.address}: no answer within {seconds:g} s") from None
                except psycopg.Error as error:
                    if not connection.closed:
                        raise NoAnswer(Reason.FAILED, f"{self.resource.address}: {_words(error)}") from error
                    if is_last:
                        raise NoAnswer(Reason.REFUSED, f"{self.resource.address}: {_words(error)}") from error
                finally:
                    await self._drop_closed()
        raise AssertionError("the last round returns or raises")

    async def read(self, query: Query, params: Params | None = None, *, seconds: float = ANSWER_SECONDS) -> list[Row]:
        """As `ask`, in the terms of a tool: Unreachable, or ToolFailed where the server refuses."""
        try:
            return await self.ask(query, params, seconds=seconds)
        except NoAnswer as error:
            raise error.as_tool_error() from None
        except TimeoutError as error:
            raise Unreachable(f"{self.resource.address}: the monitoring connection is busy") from error

    async def change(self, query: Query, params: Params | None = None, *, seconds: float = 5) -> list[Row]:
        """Rows of a statement that changes something; it is sent once.

        Raises Unreachable (not sent), NotApplicable (a lock was not to be had), OutcomeUnknown (sent, reply lost) or ToolFailed (the
        server refused).
        """
        try:
            async with self._turn():
                connection = await self._connected(_now() + ANSWER_SECONDS)
                try:
                    return await self._sent(connection, query, params, seconds)
                finally:
                    await self._drop_closed()
        except NoAnswer as error:
            raise error.as_tool_error() from None
        except TimeoutError as error:
            raise Unreachable(f"{self.resource.address}: the monitoring connection is busy") from error

    async def change_apart(self, query: Query, *, seconds: float, lock_seconds: float) -> list[Row]:
        """As `change`, on a connection of its own and as the maintenance login, if there is one: for long work, and an owner's."""
        options = f"-c statement_timeout={int(seconds * 1000)} -c lock_timeout={int(lock_seconds * 1000)}"
        try:
            connection = await self._open(self.maintenance or self.monitor, dict_row, ANSWER_SECONDS, options)
        except NoAnswer as error:
            raise error.as_tool_error() from None
        try:
            return await self._sent(connection, query, None, seconds + ANSWER_SECONDS)
        except ToolFailed as error:
            if self.maintenance is not None:
                raise
            raise ToolFailed(f"{error}; where an owner is needed, add `logins.maintenance`, a member of the owner") from error
        finally:
            await connection.close()

    async def select_as_application(self, query: Query, seconds: float) -> tuple[Row, float]:
        """The first row, and the seconds that a fresh connection as the application took for it: what its users feel. Raises NoAnswer."""
        started = _now()
        connection = await self._open(self._application(), dict_row, seconds)
        try:
            row = (await _rows(connection, query, None, started + seconds - _now()))[0]
        except TimeoutError:
            raise NoAnswer(Reason.TIMEOUT, f"{self.resource.address}: no answer to a SELECT within {seconds:g} s") from None
        except psycopg.Error as error:
            reason = Reason.REFUSED if connection.closed else Reason.FAILED
            raise NoAnswer(reason, f"{self.resource.address}: {_words(error)}") from error
        finally:
            await connection.close()
        return row, _now() - started

    async def connect_as_application(self, *, statement_seconds: float = 10) -> AsyncConnection[tuple[Any, ...]]:
        """A fresh connection in autocommit mode, for the caller to close. Raises Unreachable or ToolFailed."""
        try:
            return await self._open(self._application(), tuple_row, ANSWER_SECONDS, f"-c statement_timeout={int(statement_seconds * 1000)}")
        except NoAnswer as error:
            raise error.as_tool_error() from None

    async def close(self) -> None:
        """Close the kept connection."""
        if self._kept is not None:
            await self._kept.close()
            self._kept = None

    def _application(self) -> Login:
        if self.application is None:
            raise NotApplicable(f"{self.resource.name}: the inventory names no application login; add `logins.application`")
        return self.application

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Exclusive use of the kept connection; TimeoutError when others use it for too long."""
        async with asyncio.timeout(QUEUE_SECONDS):
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    async def _connected(self, deadline: float) -> AsyncConnection[Row]:
        if self._kept is not None and _is_hung_up(self._kept):
            await self.close()
        if self._kept is None:
            self._kept = await self._open(self.monitor, dict_row, deadline - _now())
        return self._kept

    async def _sent(self, connection: AsyncConnection[Row], query: Query, params: Params | None, seconds: float) -> list[Row]:
        try:
            return await _rows(connection, query, params, seconds)
        except TimeoutError as error:
            raise OutcomeUnknown(f"{self.resource.address}: no reply within {seconds:g} s") from error
        except errors.LockNotAvailable as error:
            raise NotApplicable(f"{self.resource.address}: {_words(error)}; nothing was done") from error
        except psycopg.Error as error:
            # A cancelled statement may have done a part of its work, such as signal some of the backends.
            if connection.closed or isinstance(error, errors.QueryCanceled):
                raise OutcomeUnknown(f"{self.resource.address}: no complete reply: {_words(error)}") from error
            raise ToolFailed(f"{self.resource.address}: {_words(error)}") from error

    async def _drop_closed(self) -> None:
        if self._kept is not None and self._kept.closed:
            await self.close()

    async def _open(
        self, login: Login, row_factory: AsyncRowFactory[R], seconds: float, options: str = STATEMENT_TIMEOUT
    ) -> AsyncConnection[R]:
        server, _, database = self.resource.address.partition("/")
        host, _, port = server.rpartition(":")
        try:
            # libpq's own connect_timeout is 2 s at least.
            async with asyncio.timeout(seconds):
                return await AsyncConnection[R].connect(
                    host=host.strip("[]"),
                    port=port,
                    dbname=database,
                    user=login.username,
                    password=login.password,
                    application_name=APPLICATION_NAME,
                    options=options,
                    autocommit=True,
                    row_factory=row_factory,
                )
        except psycopg.Error as error:
            refusal = _words(error)
        except TimeoutError:
            raise NoAnswer(Reason.TIMEOUT, f"{self.resource.address}: no connection as {login.username} within {seconds:.1f} s") from None
        # Raised here, so that it carries no trace of psycopg's error: that one holds the password in its `pgconn`.
        raise NoAnswer(reason_of(refusal), f"{self.resource.address}: no connection as {login.username}: {refusal}")


async def _rows(connection: AsyncConnection[Row], query: Query, params: Params | None, seconds: float) -> list[Row]:
    async def run() -> list[Row]:
        cursor = await connection.execute(query, params)
        return await cursor.fetchall() if cursor.description is not None else []

    return await in_time(connection, run(), seconds)


async def in_time(connection: AsyncConnection[Any], operation: Coroutine[Any, Any, T], seconds: float) -> T:
    """The operation's result; after `seconds` TimeoutError, and the connection is dead.

    psycopg answers a cancellation by asking the server to cancel and waits up to 5 s for that. Cutting the socket ends it at once;
    `statement_timeout` ends what the server is left with.
    """
    task = asyncio.ensure_future(operation)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(seconds, 0))
        if done:
            return task.result()
    finally:
        if not task.done():
            _cut(connection)
            await asyncio.wait({task}, timeout=CUT_SECONDS)
            await connection.close()
            if task.done():
                task.exception()  # what the cut made of it is of no interest
    raise TimeoutError(f"no answer within {seconds:g} s")


def _cut(connection: AsyncConnection[Any]) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as twin, contextlib.suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)


def _is_hung_up(connection: AsyncConnection[Any]) -> bool:
    """Whether the connection is closed, or has something to read while it is idle: the server's farewell."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _words(error: psycopg.Error) -> str:
    """The error's own message on one line; never its `pgconn`, which holds the password."""
    text = error.diag.message_primary or _WHERE.sub("", str(error))
    return " ".join(text.split()) or type(error).__name__


def _now() -> float:
    return asyncio.get_running_loop().time()
