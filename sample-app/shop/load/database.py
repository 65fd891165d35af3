"""Report sessions on the database: each has a connection of its own and one long query."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psycopg
from psycopg.pq import ExecStatus
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.database import Connection, Database
from shop.errors import first_line, parse_body
from shop.load.sessions import SessionEnded, Sessions

logger = logging.getLogger(__name__)

APPLICATION_NAME = "shop-reports"
_REPORT = b"SELECT count(*), sum(total_cents) FROM orders CROSS JOIN pg_sleep($1)"
# The server forgets a cancellation that overtakes its query: ask again.
CANCEL_AGAIN_SECONDS = 0.1
CANCEL_SECONDS = 3.0


class BlockingRequest(BaseModel):
    """How many sessions, and for how many seconds each query runs."""

    model_config = ConfigDict(extra="forbid")

    connections: int = Field(ge=1, le=500, strict=True)
    seconds: float = Field(default=3600, gt=0, le=3600)


class DatabaseLoad:
    """POST, GET and DELETE /load/database/blocking."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sessions = Sessions("reports", limit=500)

    def routes(self) -> list[Route]:
        """The endpoints."""
        path = "/load/database/blocking"
        return [
            Route(path, self.start, methods=["POST"]),
            Route(path, self.stop, methods=["DELETE"]),
            Route(path, self.show, methods=["GET"]),
        ]

    async def start(self, request: Request) -> JSONResponse:
        """Open more sessions; answer when all of them run or were refused."""
        parameters = await parse_body(request, BlockingRequest)

        async def session(stand: Callable[[], None]) -> None:
            try:
                connection = await self._database.connect(APPLICATION_NAME)
                try:
                    await _run_report(connection, parameters.seconds, stand)
                finally:
                    await connection.close()
            except (psycopg.Error, OSError) as error:
                raise SessionEnded(first_line(error)) from error

        return JSONResponse((await self._sessions.open(parameters.connections, session)).as_json())

    async def stop(self, _request: Request) -> JSONResponse:
        """Cancel the queries and close the sessions."""
        return JSONResponse({"closed": await self._sessions.close()})

    async def show(self, _request: Request) -> JSONResponse:
        """How many sessions are open."""
        return JSONResponse(await self.status())

    async def status(self) -> dict[str, object]:
        """`held` now, and `ended_early` by the server."""
        return self._sessions.status()

    async def close(self, seconds: float) -> None:
        """Stop, in `seconds` at most."""
        await self._sessions.close(seconds)


async def _run_report(connection: Connection, seconds: float, stand: Callable[[], None]) -> None:
    """Send the query, tell that it runs, and wait for its end; when cancelled, cancel it on the server first.

    Works on libpq itself, because psycopg tells only the result of a query and not that it was sent. Raises psycopg.Error
    when the server ends the session.
    """
    connection.pgconn.send_query_params(_REPORT, [f"{seconds:g}".encode()])
    connection.pgconn.flush()
    stand()
    try:
        await _result(connection)
    except asyncio.CancelledError:
        await _cancel(connection)
        raise


async def _result(connection: Connection) -> None:
    """Wait for the result of the query under way. Raises psycopg.Error when it failed."""
    pgconn = connection.pgconn
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    while pgconn.is_busy():
        loop.add_reader(pgconn.socket, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(pgconn.socket)
        readable.clear()
        pgconn.consume_input()
    result = pgconn.get_result()
    if result is not None and result.status != ExecStatus.TUPLES_OK:
        raise psycopg.OperationalError(result.error_message.decode("utf-8", "replace"))


async def _cancel(connection: Connection) -> None:
    """Cancel the query under way; a server that does not answer is left alone."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            while True:
                await connection.cancel_safe(timeout=CANCEL_SECONDS)
                try:
                    return await asyncio.wait_for(_result(connection), CANCEL_AGAIN_SECONDS)
                except TimeoutError:
                    continue
    except (psycopg.Error, TimeoutError) as error:
        logger.debug("a report session ends: %s", first_line(error))
