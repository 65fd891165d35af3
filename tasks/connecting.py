"""From saved blocks to live clients: one set for each monitor or remediation, shared with the subflows it starts."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Protocol, overload
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import SecretStr
from redis.asyncio import Redis

from blocks.credentials import Login
from blocks.gcp import load_gcp
from blocks.gemini import GeminiBlock, load_gemini
from blocks.gemini_settings import GeminiSettings
from blocks.inventory import load_dated_inventory, load_logins
from blocks.records import load_records_url
from blocks.schema import CLOUD_KINDS, Inventory, Kind, Resource
from tasks.catalog import Catalog, load_catalog
from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.containers import open_container
from tasks.clients.login import Login as PlainLogin
from tasks.clients.memorystore import MemorystoreClient
from tasks.clients.nginx import NginxClient
from tasks.clients.open_files import allow_connections
from tasks.clients.postgres import PostgresClient
from tasks.clients.redis_server import RedisClient, open_redis
from tasks.clients.runtime import open_runtime
from tasks.clients.web import WebClient
from tasks.console import outlive_reader
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.core.redaction import Redactor
from tasks.google_clients import GoogleClients
from tasks.planners.gemini_client import GeminiAccess, GeminiClient
from tasks.records.repository import Records
from tasks.redacting import masked_logs, vendor_patterns

CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
LOGGER = logging.getLogger("evenkeel")


class Client(Protocol):
    """What every service's client has in common."""

    @property
    def resource(self) -> Resource:
        """The resource it was opened for."""

    async def close(self) -> None:
        """Close its connections."""


@dataclass
class Live:
    """An inventory with its records, its catalogue and its clients."""

    inventory: Inventory
    records: Records
    catalog: Catalog
    logins: dict[tuple[str, str], Login]
    gemini: GeminiBlock | None
    _stack: AsyncExitStack
    _shared: dict[tuple[str, ...], Client] = field(default_factory=dict)
    _own: dict[str, Client] = field(default_factory=dict)
    _gemini_clients: dict[GeminiSettings, GeminiClient] = field(default_factory=dict)
    _background: set[asyncio.Task[None]] = field(default_factory=set)
    google: GoogleClients | None = None
    """Where the inventory watches something in Google Cloud."""
    configured_at: datetime | None = None
    """When the inventory or its rules were last changed."""
    redactor: Redactor = field(init=False)
    """Masks every secret of the inventory, what looks like one, and what `keep_secret` was given."""
    _secrets: set[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._secrets = {login.password.get_secret_value() for login in self.logins.values()}
        self.redactor = Redactor(self._secrets, vendor_patterns())
        self._stack.enter_context(masked_logs(self.redactor))

    def keep_secret(self, *secrets: str) -> None:
        """Mask these too, such as a model's key: in readings, records and prompts from now on, and in the logs."""
        if self._secrets.issuperset(filter(None, secrets)):
            return
        self._secrets |= set(secrets)
        self.redactor = Redactor(self._secrets, vendor_patterns())
        self._stack.enter_context(masked_logs(self.redactor))

    def probe_client(self, resource: Resource) -> Client:
        """A client for measuring; resources at the same address with the same logins share one."""
        runtime = "" if resource.runtime is None else resource.runtime.model_dump_json()
        cloud = resource.cloud.model_dump_json()
        key = (resource.kind, resource.address, *sorted(resource.logins.values()), runtime, resource.config_path or "", cloud)
        if key not in self._shared:
            self._shared[key] = self._open(resource)
        return self._shared[key]

    def tool_client(self, resource: Resource) -> Client:
        """A client for tools, which act within the limits of just this resource."""
        shared = self.probe_client(resource)
        if shared.resource.name == resource.name:
            return shared
        if resource.name not in self._own:
            self._own[resource.name] = self._open(resource)
        return self._own[resource.name]

    def gemini_client(self, block: GeminiBlock, settings: GeminiSettings | None = None) -> GeminiClient:
        """The client with which Gemini is asked, by the block's settings or these; opened when it is first needed."""
        settings = settings or block.settings
        if settings not in self._gemini_clients:
            access = access_of(block)
            self.keep_secret(*access.secrets)
            self._gemini_clients[settings] = GeminiClient(settings, access)
            self._stack.push_async_callback(self._gemini_clients[settings].close)
        return self._gemini_clients[settings]

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for until the clients are closed; it has a deadline of its own, and an error in it is logged."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._is_over)

    async def drained(self) -> None:
        """Wait until nothing is done in the background any more."""
        while self._background:
            await asyncio.wait(self._background)

    async def give_up_background(self) -> None:
        """End what is still done in the background."""
        for task in self._background:
            task.cancel()
        await self.drained()

    def _is_over(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.error("in the background: %s", self.redactor.text(f"{type(error).__name__}: {error}"))

    def _open(self, resource: Resource) -> Client:
        client = open_client(resource, {purpose: self.logins[resource.name, purpose] for purpose in resource.logins}, self.google)
        self._stack.push_async_callback(client.close)
        return client


_current: ContextVar[Live | None] = ContextVar("evenkeel_live", default=None)


@asynccontextmanager
async def live(inventory: str) -> AsyncIterator[Live]:
    """The surrounding flow's clients if it works on the same inventory, else new ones that are closed at the end."""
    surrounding = _current.get()
    if surrounding is not None and surrounding.inventory.name == inventory:
        yield surrounding
        return
    outlive_reader()
    loaded, configured_at = await load_dated_inventory(inventory)
    async with AsyncExitStack() as stack:
        records_url = await load_records_url()
        records = await Records.open(records_url)
        stack.push_async_callback(records.close)
        logins, gemini, gcp = await asyncio.gather(load_logins(loaded), load_gemini(inventory), load_gcp(inventory))
        google = None
        if gcp is not None or any(resource.kind in CLOUD_KINDS for resource in loaded.resources):
            google = GoogleClients(loaded, logins, gcp)
            stack.push_async_callback(google.close)
            await google.open()
            loaded = await google.discovered()
        if missing := allow_connections(len(loaded.resources)):
            LOGGER.warning("%s: %s", inventory, missing)
        opened = Live(loaded, records, load_catalog(), logins, gemini, stack, google=google, configured_at=configured_at)
        opened.keep_secret(unquote(urlsplit(records_url).password or ""), *(() if gcp is None else gcp.secrets))
        token = _current.set(opened)
        try:
            yield opened
            await opened.drained()
        except Exception as error:
            # Whoever catches it shows it: Prefect in the run's final state.
            masked = opened.redactor.known(str(error))
            if masked == str(error):
                raise
            raise EvenkeelError(f"{type(error).__name__}: {masked}") from None
        finally:
            await opened.give_up_background()
            _current.reset(token)


def current() -> Live:
    """The clients of the flow that this runs in."""
    found = _current.get()
    if found is None:
        raise RuntimeError("no live inventory: call this inside `async with live(...)`")
    return found


def open_client(resource: Resource, logins: dict[str, Login], google: GoogleClients | None = None) -> Client:
    """A client of the resource's kind; connections are made when they are first needed.

    ProbeBroken: what it takes is not configured as it must be.
    """
    if resource.kind in CLOUD_KINDS:
        return _in_google_cloud(resource, logins, google)
    runtime = open_runtime(resource.runtime)
    match resource.kind:
        case Kind.REDIS:
            return RedisClient(
                redis=_redis(resource, logins.get("monitor")),
                resource=resource,
                runtime=runtime,
                application=_plain(logins.get("application")),
            )
        case Kind.POSTGRES:
            return PostgresClient(
                resource=resource,
                monitor=_plain(logins["monitor"]),
                application=_plain(logins.get("application")),
                maintenance=_plain(logins.get("maintenance")),
                runtime=runtime,
            )
        case Kind.NGINX:
            return NginxClient(_http(resource.nginx.ca_path), resource, runtime)
        case Kind.HTTP:
            return WebClient(_http(), resource, runtime)
        case Kind.CONTAINER:
            return open_container(resource)
        case _:
            raise AssertionError(f"{resource.kind}: no client is known")


def _in_google_cloud(resource: Resource, logins: dict[str, Login], google: GoogleClients | None) -> Client:
    if google is None:
        raise ProbeBroken(f"gcp: {resource.name} is a {resource.kind}, and no project of Google Cloud is named; add the section gcp")
    match resource.kind:
        case Kind.COMPUTE_ENGINE:
            return ComputeClient(resource, google.cloud, google.ssh(resource.name))
        case Kind.CLOUD_SQL:
            return CloudSqlClient(
                resource=resource,
                cloud=google.cloud,
                way=google.way(resource.cloud.through),
                monitor=_plain(logins.get("monitor")),
                application=_plain(logins.get("application")),
                maintenance=_plain(logins.get("maintenance")),
            )
        case _:
            return MemorystoreClient(
                resource=resource, cloud=google.cloud, way=google.way(resource.cloud.through), monitor=_plain(logins.get("monitor"))
            )


def _redis(resource: Resource, login: Login | None) -> Redis:
    host, _, port = resource.address.rpartition(":")
    if login is None:
        return open_redis(host, int(port))
    return open_redis(host, int(port), username=login.username, password=login.password.get_secret_value())


def access_of(block: GeminiBlock) -> GeminiAccess:
    """With what the block's Gemini is reached."""
    return GeminiAccess(_secret(block.api_key), _secret(block.service_account))


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


@overload
def _plain(login: Login) -> PlainLogin: ...
@overload
def _plain(login: None) -> None: ...
def _plain(login: Login | None) -> PlainLogin | None:
    return None if login is None else PlainLogin(login.username, login.password.get_secret_value())


@cache
def _public_authorities() -> ssl.SSLContext:
    """Of every client that names no authority of its own: reading them takes 20 ms and a megabyte."""
    return httpx.create_ssl_context(trust_env=False)


def _http(ca_path: str | None = None) -> httpx.AsyncClient:
    try:
        verify = _public_authorities() if ca_path is None else ssl.create_default_context(cafile=ca_path)
    except OSError as error:  # one of TLS, too
        raise ProbeBroken(f"nginx.ca_path: no certificates can be read from {ca_path} ({error.strerror or error})") from error
    return httpx.AsyncClient(
        verify=verify,
        timeout=httpx.Timeout(REPLY_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),  # a kept connection would hide that no new one is accepted
        trust_env=False,
    )
