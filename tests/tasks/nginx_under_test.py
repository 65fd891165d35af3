"""A real Nginx for the tests of its probe and tools, seen from outside: psutil, raw sockets, and the file's bytes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Resource
from compose.description import LabDescription
from tasks.clients.nginx import NginxClient
from tasks.clients.runtime import SupervisedProcess
from tasks.connecting import open_client

DEADLINE_SECONDS = 10.0
WORKER = "nginx: worker process"
Held = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class NginxUnderTest:
    """The lab's Nginx, and what a test does to it."""

    lab: LabDescription
    baseline: bytes
    _stack: AsyncExitStack
    runtime: SupervisedProcess = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = SupervisedProcess(str(self.lab.control), "web")

    @property
    def config_path(self) -> Path:
        return self.lab.web.config_path

    def resource(self, **fields: Any) -> Resource:
        given = {"config_path": str(self.config_path), "runtime": ProcessRuntime(control=str(self.lab.control), service="web")}
        return Resource(**{"name": "web", "kind": Kind.NGINX, "address": self.lab.web.url, **given, **fields})

    def client(self, **fields: Any) -> NginxClient:
        """A new client that has seen nothing yet."""
        client = open_client(self.resource(**fields), {})
        assert isinstance(client, NginxClient)
        self._stack.push_async_callback(client.close)
        return client

    async def page(self, path: str = "/") -> httpx.Response:
        """The page as a visitor gets it, over a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            return await http.get(self.lab.web.url.rstrip("/") + path)

    async def configure(self, change: Callable[[str], str]) -> bytes:
        """Write a changed configuration, and start anew with it; answers the bytes."""
        self.config_path.write_text(change(self.baseline.decode()))
        await self.runtime.restart()
        return self.config_path.read_bytes()

    async def request(self, path: str) -> Held:
        """One request under way, over a connection of its own that ends with the test."""
        reader, writer = await asyncio.open_connection(self.lab.web.host, self.lab.web.port)
        self._stack.callback(_abort, writer)
        writer.write(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
        return reader, writer

    async def hold(self, count: int, path: str = "/hold") -> list[Held]:
        """Requests under way until the workers hold `count` connections more; near its limit Nginx drops some, so it is topped up."""
        target = self.established() + count
        held: list[Held] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (missing := target - self.established()) > 0:
            assert time.monotonic() < deadline, f"{missing} of {count} connections are not held"
            held += [await self.request(path) for _ in range(missing)]
            await asyncio.sleep(0.05)
        return [one for one in held if not one[0].at_eof()]

    def freeze(self, pid: int) -> None:
        """Stop a process by a signal until the test ends."""
        process = psutil.Process(pid)
        self._stack.callback(_thaw, process)
        process.suspend()

    def master(self) -> psutil.Process:
        """The master, found by its title and its configuration."""
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            if title.startswith("nginx: master process") and str(self.config_path) in title:
                return process
        raise LookupError("no master process")

    def workers(self) -> dict[int, str]:
        """Worker pid -> title, the ones that shut down included."""
        titles = {}
        for child in self.master().children():
            try:
                title = " ".join(child.cmdline()).strip()
            except psutil.NoSuchProcess:
                continue
            if title.startswith(WORKER):
                titles[child.pid] = title
        return titles

    def serving(self) -> set[int]:
        return {pid for pid, title in self.workers().items() if "shutting down" not in title}

    def established(self, pids: set[int] | None = None) -> int:
        """Established TCP connections of the workers, by the kernel's own table."""
        count = 0
        for pid in self.serving() if pids is None else pids:
            try:
                found = psutil.Process(pid).net_connections("tcp")
            except psutil.NoSuchProcess:
                continue
            count += sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)
        return count

    def drafts(self) -> list[str]:
        return [path.name for path in self.config_path.parent.iterdir() if ".evenkeel-" in path.name]


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _thaw(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


async def wait_until(condition: Callable[[], bool], description: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {description}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def nginx_under_test(lab: LabDescription) -> AsyncIterator[NginxUnderTest]:
    """A lab's Nginx, running with the lab's configuration and without connections before and after the block."""
    baseline = lab.web.config_path.read_bytes()
    try:
        async with AsyncExitStack() as stack:
            yield NginxUnderTest(lab, baseline, stack)
    finally:
        lab.web.config_path.write_bytes(baseline)
        await SupervisedProcess(str(lab.control), "web").restart()
