"""Real containers for the tests, made and looked at with Docker's own command line, apart from the code under test."""

import asyncio
import contextlib
import inspect
import json
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from blocks.runtimes import LOCAL_ENGINE, ContainerRuntime
from blocks.schema import Kind, Resource
from tasks.clients.containers import ContainerClient, open_container

SOCKET = "/var/run/docker.sock"
IMAGE = "debian:bookworm-slim"
OWNER = "evenkeel.owner=containers"
IDLE = ("sleep", "3600")


def docker(*arguments: str, check: bool = True) -> str:
    """What the command line prints; its error where it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


@cache
def why_there_is_no_engine() -> str:
    """Why tests that need an engine can't run; empty where they can."""
    try:
        images = docker("images", "--quiet", IMAGE)
    except (AssertionError, FileNotFoundError, subprocess.TimeoutExpired) as error:
        return f"no container engine answers: {error}"
    return "" if images else f"the engine has no image {IMAGE}"


def inspected(name: str) -> dict[str, Any]:
    """What the command line tells of a container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", name))
    return found[0]


@contextmanager
def container(*options: str, command: Sequence[str] = IDLE, start: bool = True) -> Iterator[str]:
    """The name of a new container that is gone afterwards, whatever its state. Its process ends at the first signal.

    It has no network unless the options name one: that is quicker.
    """
    name = f"evenkeel-containers-{uuid.uuid4().hex[:10]}"
    options = options if "--network" in options else ("--network", "none", *options)
    docker("create", "--init", "--name", name, "--label", OWNER, *options, IMAGE, *command)
    try:
        if start:
            docker("start", name)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


@contextmanager
def network() -> Iterator[str]:
    """The name of a new network that is gone afterwards."""
    name = f"evenkeel-containers-{uuid.uuid4().hex[:10]}"
    docker("network", "create", "--label", OWNER, name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


class Line:
    """A socket that leads to the real engine, and can be cut or made to hang: for what a client does without one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.url = f"unix://{path}"

    async def connect(self) -> None:
        """Lead to the engine, from now on or again."""
        self._flows.set()
        if self._server is None:
            Path(self._path).unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self._path)

    def hang(self) -> None:
        """Take requests, and answer nothing any more."""
        self._flows.clear()

    async def cut(self) -> None:
        """End every connection and take none."""
        self._flows.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_engine, engine = await asyncio.open_unix_connection(SOCKET)
        self._writers |= {writer, engine}
        await asyncio.gather(self._pass_on(reader, engine), self._pass_on(to_engine, writer))
        self._writers -= {writer, engine}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


async def until(condition: Callable[[], Awaitable[object] | object], seconds: float = 30) -> None:
    """Wait for a condition to hold; fails after a generous time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {inspect.getsource(condition)}"
        await asyncio.sleep(0.05)


def box(name: str, engine: str = LOCAL_ENGINE, **fields: Any) -> Resource:
    """A container as a resource."""
    runtime = ContainerRuntime(container=name, engine=engine)
    return Resource(name="shop-box", kind=Kind.CONTAINER, address=name, runtime=runtime, **fields)


@asynccontextmanager
async def client_of(name: str, engine: str = LOCAL_ENGINE, **fields: Any) -> AsyncIterator[ContainerClient]:
    """A client for it, as tools and probes receive one."""
    client = open_container(box(name, engine, **fields))
    try:
        yield client
    finally:
        await client.close()
