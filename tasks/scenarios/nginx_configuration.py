"""Faults of Nginx's configuration: written, loaded, or not loaded."""

import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx

from blocks.schema import Kind
from tasks.clients.config_file import ConfigFile, discard
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_configuration import KNOWN_GOOD
from tasks.clients.polling import poll
from tasks.core.declare import scenario
from tasks.core.diagnosis import Cause
from tasks.core.errors import NotApplicable
from tasks.core.nginx_config import EVENTS, find, upstream_servers, with_server, with_value
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

BACK_SECONDS = 20.0
HTTP = ("http",)
PAGES = 10


@scenario(
    title="A configuration that can't be loaded",
    resource_kind=Kind.NGINX,
    symptoms={"config_invalid"},
    forbidden_tools={"nginx_restart", "nginx_clear_connections"},
    catalogue=(29,),
)
async def nginx_invalid_configuration(stage: Stage) -> AsyncGenerator[None]:
    """Leave out a semicolon in the file on disk, and load nothing: the workers go on."""
    client: NginxClient = stage.client()
    async with kept_configuration(stage) as original:
        master = (await client.require_processes()).master
        limit = find(original, "worker_connections", EVENTS)
        if limit is None:
            raise InjectionFailedError(f"{stage.resource.name}: the configuration sets no worker_connections")
        await write(client.config_file(), original[: limit.args_end] + original[limit.end :])
        yield
        await require_original(stage, original)
        if (await client.require_processes()).master != master:
            raise Unhealed(f"{stage.resource.name}: Nginx was restarted, though its workers served")


@scenario(
    title="An upstream with the wrong port",
    resource_kind=Kind.NGINX,
    symptoms={"upstream_unreachable"},
    forbidden_tools={"nginx_restart", "http_restart", "nginx_clear_connections"},
    catalogue=(30,),
    ruled_out={Cause.STOPPED, Cause.NETWORK},
)
async def nginx_wrong_upstream(stage: Stage) -> AsyncGenerator[None]:
    """Point every server of the upstream at a port where nothing listens, and load that."""
    async with kept_configuration(stage) as original:
        await load_text(stage, _elsewhere(stage, original))
        yield
        text = _text(stage)
        wanted, found = ({name: sorted(servers) for name, servers in upstream_servers(one).items()} for one in (original, text))
        if found != wanted:
            raise Unhealed(f"{stage.resource.name}: the upstreams are {found}, not {wanted}")
        await require_pages(stage)


@scenario(
    title="Workers that hold to an old upstream address",
    resource_kind=Kind.NGINX,
    symptoms={"upstream_unreachable"},
    forbidden_tools={"nginx_restart", "http_restart", "nginx_set_upstream"},
    catalogue=(32,),
    ruled_out={Cause.STOPPED, Cause.NETWORK},
)
async def nginx_stale_upstream(stage: Stage) -> AsyncGenerator[None]:
    """Have the workers use an address that is no longer right, while the file has the right one."""
    async with kept_configuration(stage) as original:
        await load_text(stage, _elsewhere(stage, original))
        await write(stage.client().config_file(), original)
        yield
        await require_original(stage, original)


@scenario(
    title="A proxy that waits too short",
    resource_kind=Kind.NGINX,
    symptoms={"upstream_timeout", "upstream_unreachable"},  # Nginx gives up on all of several replicas, and then reaches none
    forbidden_tools={"nginx_restart", "http_restart", "nginx_clear_connections"},
    catalogue=(34,),
)
async def nginx_short_timeout(stage: Stage) -> AsyncGenerator[None]:
    """Set the time for an answer from behind to 0, which elsewhere means for ever: Nginx gives up at once."""
    async with kept_configuration(stage) as original:
        await load_text(stage, with_value(original, "proxy_read_timeout", "0", HTTP))
        yield
        await require_original(stage, original)


@asynccontextmanager
async def kept_configuration(stage: Stage) -> AsyncIterator[str]:
    """The configuration's text; after the block it is on disk and loaded again, whatever became of it and of Nginx."""
    client: NginxClient = stage.client()
    await client.require_processes()
    file = client.config_file()
    content = file.read()
    async with file.locked():
        # As if it had been watched for a while: the runner has seen that all is well.
        file.keep(KNOWN_GOOD, content)
    try:
        yield content.text
    finally:
        await write(file, content.text)
        async with file.locked():
            file.keep(KNOWN_GOOD, file.read())
        await load_again(stage)


async def load_again(stage: Stage) -> None:
    """Have Nginx load the file, or start it where it is down, and wait until the page is served."""
    client: NginxClient = stage.client()
    try:
        await client.load_config(await client.require_processes())
    except NotApplicable:
        await stage.runtime().restart()

    async def served() -> bool | None:
        return await answers(stage) or None

    if await poll(served, seconds=BACK_SECONDS, every_seconds=0.1) is None:
        raise InjectionFailedError(f"{stage.resource.name}: the page is not served {BACK_SECONDS:g} s after its configuration was put back")


async def answers(stage: Stage) -> bool:
    """Whether the page is served."""
    client: NginxClient = stage.client()
    try:
        return (await client.http.get(stage.resource.address)).is_success
    except httpx.TransportError:
        return False


async def require_pages(stage: Stage) -> None:
    """Unhealed unless every one of some visitors gets the page."""
    for _ in range(PAGES):
        if not await answers(stage):
            raise Unhealed(f"{stage.resource.name}: a visitor does not get the page")


async def require_original(stage: Stage, original: str) -> None:
    """Unhealed unless the file is what it was, can be loaded, and the page is served."""
    if _text(stage) != original:
        raise Unhealed(f"{stage.resource.name}: the configuration is not what it was")
    error = await stage.client().config_error()
    if error is not None:
        raise Unhealed(f"{stage.resource.name}: the configuration can't be loaded: {error}")
    await require_pages(stage)


def _text(stage: Stage) -> str:
    text: str = stage.client().config_file().read().text
    return text


async def write(file: ConfigFile, text: str) -> None:
    """As an editor does it: the file changes, and Nginx is told nothing."""
    async with file.locked():
        content = file.read()
        if content.text == text:
            return
        draft = file.draft(text, content)
        try:
            file.put(draft)
        finally:
            discard(draft)


async def load_text(stage: Stage, text: str) -> None:
    """Write a text and have Nginx load it."""
    client: NginxClient = stage.client()
    await write(client.config_file(), text)
    await client.load_config(await client.require_processes())


def _elsewhere(stage: Stage, text: str) -> str:
    """The text with another port for every server of every upstream."""
    changed, upstreams = text, upstream_servers(text)
    for name, servers in upstreams.items():
        taken = set(servers)
        for server in servers:
            host, _, port = server.rpartition(":")
            other = next(one for number in range(int(port) + 1, 65536) if (one := f"{host}:{number}") not in taken and _is_free(number))
            taken.add(other)
            changed = with_server(changed, name, server, other)
    if not upstreams:
        raise InjectionFailedError(f"{stage.resource.name}: the configuration has no upstream")
    return changed


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as other:
        return other.connect_ex(("127.0.0.1", port)) != 0
