"""Loopback ports of this process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from compose.description import HOST

KEEP_ALIVE_SECONDS = 300


class _Listener(uvicorn.Server):
    """One server of several in a process that takes care of signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, certificate: Path | None = None) -> AsyncIterator[int]:
    """Serve an application on a free port, which is given; with CERTIFICATE.crt and .key over TLS."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        ssl_certfile=None if certificate is None else f"{certificate}.crt",
        ssl_keyfile=None if certificate is None else f"{certificate}.key",
    )
    # It listens from here on: who connects before the server runs waits for it.
    with socket.create_server((HOST, 0)) as listener:
        server = _Listener(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await running
