"""The way in: a CONNECT proxy that leads every `*.googleapis.com` to the simulator and nothing anywhere else."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from compose.description import HOST

CONNECT = re.compile(r"CONNECT ([a-z0-9-]+\.googleapis\.com):443 HTTP/1\.[01]")
MAX_HEAD_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024


class Proxy:
    """`async with Proxy({"monitoring.googleapis.com": port}, rest_port)`: hosts with a port of their own, and the port of all others."""

    def __init__(self, own_ports: Mapping[str, int], other_port: int, port: int = 0) -> None:
        self.port = port
        self._own_ports = own_ports
        self._other_port = other_port
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()
        self._lines: dict[int, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, HOST, self.port, limit=MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening and end every tunnel."""
        assert self._server is not None
        self._server.close()
        for tunnel in tuple(self._tunnels):
            tunnel.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, port: int) -> None:
        """End the tunnel whose inner end has this port, in the middle of whatever goes through it."""
        writer = self._lines.get(port)
        if writer is not None:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._tunnels.add(this)
        try:
            # asyncio would report a connection that ends as cancelled, or by a reset, as an error.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
                await self._tunnel(reader, writer)
        finally:
            self._tunnels.discard(this)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        found = CONNECT.fullmatch(head.split("\r\n", 1)[0])
        if found is None:
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        inner_reader, inner_writer = await asyncio.open_connection(HOST, self._own_ports.get(found[1], self._other_port))
        port = inner_writer.get_extra_info("sockname")[1]
        self._lines[port] = writer
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pour(reader, inner_writer), _pour(inner_reader, writer))
        finally:
            del self._lines[port]
            inner_writer.close()
            with contextlib.suppress(ConnectionError):
                await inner_writer.wait_closed()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, then let the other side know of it."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    # Half-closed TLS is of no use to anybody: the whole tunnel ends with its first end.
    writer.close()
