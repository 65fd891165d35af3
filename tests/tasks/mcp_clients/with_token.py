"""A reverse proxy on loopback that shows the token for a client which can't: the conformance suite has no option for one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from compose.description import HOST

OWN_TO_A_CONNECTION = {"content-length", "transfer-encoding", "connection"}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def with_token(url: str, token: str) -> AsyncIterator[str]:
    """Gives the URL at which every request is passed on with the token; Host and Origin stay what the client says."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as onward:

        async def passed_on(request: Request) -> Response:
            headers = [*((name, value) for name, value in request.headers.items()), ("authorization", f"Bearer {token}")]
            sent = onward.build_request(request.method, url, headers=headers, content=await request.body())
            answer = await onward.send(sent, stream=True)
            kept = {name: value for name, value in answer.headers.items() if name not in OWN_TO_A_CONNECTION}
            return StreamingResponse(_whole(answer), answer.status_code, kept)

        application = Starlette(routes=[Route("/mcp", passed_on, methods=["GET", "POST", "DELETE", "OPTIONS"])])
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", ws="none")
        server = _Server(config)
        with socket.create_server((HOST, 0)) as listening:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield f"http://{HOST}:{listening.getsockname()[1]}/mcp"
            finally:
                server.should_exit = True
                server.force_exit = True
                await serving


async def _whole(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
