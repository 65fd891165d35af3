"""Long downloads through the proxy, and the endpoint that they download."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from shop.errors import Conflict, Invalid, first_line, parse_body
from shop.load.sessions import Opened, SessionEnded, Sessions

ANSWER_SECONDS = 2.0
# Below the read timeout of any proxy.
TRICKLE_SECONDS = 2.0
MAX_SECONDS = 3600.0


class HoldRequest(BaseModel):
    """How many requests, and for how many seconds each lasts."""

    model_config = ConfigDict(extra="forbid")

    connections: int = Field(ge=1, le=2000, strict=True)
    seconds: float = Field(default=MAX_SECONDS, gt=0, le=MAX_SECONDS)


async def stream_report(request: Request) -> StreamingResponse:
    """GET /reports/stream?seconds=N: a report that arrives a byte at a time for N seconds."""
    try:
        seconds = float(request.query_params.get("seconds", ""))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise Invalid(f"seconds: give a number above 0 and up to {MAX_SECONDS:g}")

    async def trickle() -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            yield b"."
            await asyncio.sleep(min(left, TRICKLE_SECONDS))
        yield b"\n"

    return StreamingResponse(trickle(), media_type="text/plain", headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})


class NginxLoad:
    """POST, GET and DELETE /load/nginx/hold."""

    def __init__(self, public_url: str | None) -> None:
        self._public_url = public_url
        self._sessions = Sessions("downloads", limit=2000)

    def routes(self) -> list[Route]:
        """The endpoints."""
        path = "/load/nginx/hold"
        return [
            Route("/reports/stream", stream_report, methods=["GET"]),
            Route(path, self.start, methods=["POST"]),
            Route(path, self.stop, methods=["DELETE"]),
            Route(path, self.show, methods=["GET"]),
        ]

    async def start(self, request: Request) -> JSONResponse:
        """Begin more downloads; answer when the first byte of each has come or it was refused."""
        parameters = await parse_body(request, HoldRequest)
        if self._public_url is None:
            raise Conflict("the shop does not know its proxy: set SHOP_PUBLIC_URL")
        url = self._public_url

        async def session(stand: Callable[[], None]) -> None:
            try:
                await _download(url, parameters.seconds, stand)
            except asyncio.IncompleteReadError as error:
                raise SessionEnded("the proxy closed the connection") from error
            except (OSError, asyncio.LimitOverrunError) as error:
                # TimeoutError is an OSError.
                raise SessionEnded(first_line(error)) from error

        opened = await self._sessions.open(parameters.connections, session)
        held, refused = opened.held, opened.refused
        # Each takes two connections of the proxy, so a burst is refused before the last ones are taken.
        while refused and (await self._sessions.open(1, session)).held:
            held, refused = held + 1, refused - 1
        return JSONResponse(Opened(held, refused, opened.reason if refused else None).as_json())

    async def stop(self, _request: Request) -> JSONResponse:
        """Break off every download."""
        return JSONResponse({"closed": await self._sessions.close()})

    async def show(self, _request: Request) -> JSONResponse:
        """How many downloads are under way."""
        return JSONResponse(await self.status())

    async def status(self) -> dict[str, object]:
        """`held` now, and `ended_early` by the server."""
        return self._sessions.status()

    async def close(self, seconds: float) -> None:
        """Stop, in `seconds` at most."""
        await self._sessions.close(seconds)


async def _download(url: str, seconds: float, stand: Callable[[], None]) -> None:
    """One request over a connection of its own, to the end of its answer; raises SessionEnded when that comes early."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    loop = asyncio.get_running_loop()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=ssl.create_default_context() if secure else None
            )
            # HTTP/1.0 has no chunks: the body ends with the connection.
            request = f"GET {parts.path}/reports/stream?seconds={seconds:g} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
            writer.write(request.encode("ascii"))
            status = (await reader.readuntil(b"\r\n")).split(maxsplit=2)
            if len(status) < 2 or status[1] != b"200":
                raise SessionEnded(f"the proxy answered {b' '.join(status[1:2]).decode('ascii', 'replace') or 'nothing'}")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
        end = loop.time() + seconds
        stand()
        while await reader.read(4096):
            pass
        if loop.time() < end - 1:
            raise SessionEnded("the proxy closed the connection")
    finally:
        if writer is not None:
            writer.transport.abort()
