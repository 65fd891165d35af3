"""The lab's MCP server as the command that people start, clients of both eras, and a person who answers."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from mcp import types as protocol
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.mcp_access import save_mcp
from blocks.mcp_section import McpAccess
from blocks.schema import Autonomy
from compose.control_plane import ControlPlane
from compose.description import free_ports
from tasks.connecting import Live
from tests.flows.cache_fault import inventory_with

ROOT = Path(__file__).parent.parent.parent
COMMAND = ("-m", "flows.mcp_serve", "--inventory", "lab")
TOKEN = "a-token-of-the-mcp-tests"
SECONDS = 60.0
LEGACY, MODERN = "legacy", "2026-07-28"
NAME = "the tests"


@contextmanager
def serving(plane: ControlPlane) -> Iterator[str]:
    """URL of the lab's MCP server."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    asyncio.run(_save(plane, McpAccess(listen=listen, token=SecretStr(TOKEN))))
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "--http"],
        cwd=ROOT,
        env=plane.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://{listen}/mcp"
        deadline = time.monotonic() + SECONDS
        while not _answers(url):
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < deadline, f"no answer within {SECONDS:g} s"
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


async def _save(plane: ControlPlane, access: McpAccess) -> None:
    with temporary_settings(updates={PREFECT_API_URL: plane.api_url}):
        async with get_client() as client:
            await save_mcp(client, "lab", access)


def _answers(url: str) -> bool:
    try:
        httpx.post(url, trust_env=False)
    except httpx.ConnectError:
        return False
    return True


@dataclass
class Person:
    """Who answers the questions, and what was asked."""

    answer: Any
    asked: list[str] = field(default_factory=list)

    async def __call__(self, message: str, _form: Any, _params: Any, _context: Any) -> Any:
        """The answer, as the handler of a client's elicitations."""
        self.asked.append(message)
        return self.answer


def approving(comment: str = "") -> Person:
    """A person who agrees."""
    return Person({"answer": "approve", "comment": comment})


def stdio(plane: ControlPlane) -> StdioTransport:
    """A server of its own for a client, as a host starts it."""
    return StdioTransport(sys.executable, list(COMMAND), cwd=str(ROOT), env=plane.environment, keep_alive=False)


@asynccontextmanager
async def client(server: str | StdioTransport, mode: str, person: Person | None = None) -> AsyncIterator[Client[Any]]:
    """A client, with the token for a URL; without a person it declares that it can ask nobody."""
    who = protocol.Implementation(name=NAME, version="1")
    transport = StreamableHttpTransport(server, auth=TOKEN) if isinstance(server, str) else server
    async with Client(transport, mode=mode, elicitation_handler=person, client_info=who) as found:
        yield found


def cautiously(opened: Live, **rules: Any) -> Any:
    """The inventory with a cache of which every change asks a person."""
    return inventory_with(opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE}), **rules)
