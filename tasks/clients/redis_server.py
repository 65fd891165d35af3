"""A ready client for one Redis or Valkey server, and what probes and tools share of its language."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from blocks.schema import Resource
from tasks.clients.config_file import ConfigFile
from tasks.clients.login import Login
from tasks.clients.runtime import Runtime
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

MIB = 2**20
CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
TURNED_AWAY = "max number of clients reached"
WORKING = "evenkeel-working"
"""Name of the connection on which a tool is changing the server."""


@dataclass
class RedisClient:
    """Persistent administrative connections, so that measuring goes on when maxclients is reached."""

    redis: Redis
    resource: Resource
    runtime: Runtime | None = None
    application: Login | None = None
    """The login of the application that uses the server, as the inventory has it."""
    kept: dict[str, str] = field(default_factory=dict, repr=False)
    """What tools replaced, for their undo: no value that they take back comes from a plan."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held while the server is measured: resources that share a client share one connection."""
    silent_at: float = 0
    """Monotonic time at which a measurement was last given up without an answer."""

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()

    def configuration(self) -> str:
        """The text of the server's configuration file; NotApplicable where the inventory names none, or it can't be read. Blocks."""
        path = self.resource.config_path
        if path is None:
            raise NotApplicable(f"{self.resource.name}: the inventory names no config_path, so what is declared is not known; add it")
        return ConfigFile(Path(path)).read().text


def open_redis(host: str, port: int, *, username: str | None = None, password: str | None = None) -> Redis:
    """A client that connects on first use and again after a broken connection, and never repeats a command by itself.

    A connection is given up after 1 s, a reply after 2 s.
    """
    return Redis(
        host=host,
        port=port,
        username=username,
        password=password,
        protocol=2,  # with RESP3 this client no longer notices a connection that was closed while idle
        decode_responses=True,
        encoding_errors="surrogateescape",  # a key of any bytes survives the way there and back
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=REPLY_SECONDS,
        retry=Retry(NoBackoff(), 0),
        driver_info=_driver_info(),
    )


@cache
def _driver_info() -> DriverInfo:
    """By what name and version connections present themselves; to look the version up takes longer than to connect."""
    return DriverInfo()


def memory_percent(used: int, limit: int) -> float | None:
    """Share of the limit in percent; None where there is no limit. Both in bytes."""
    return round(100 * used / limit, 2) if limit else None


def key_counts(info: Mapping[str, Any]) -> tuple[int, int]:
    """Keys of all databases, and how many of them expire, from INFO keyspace (db0:keys=...,expires=...)."""
    databases = [value for name, value in info.items() if name.startswith("db") and isinstance(value, dict) and "keys" in value]
    return sum(database["keys"] for database in databases), sum(database["expires"] for database in databases)


def memory_values(info: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What tools show of a server's memory: INFO memory (used_memory, maxmemory, maxmemory_policy), stats and keyspace."""
    used, limit = info["used_memory"], info["maxmemory"]
    return {
        "used_memory_mib": round(used / MIB, 2),
        "maxmemory_mib": round(limit / MIB, 2),
        "memory_percent": memory_percent(used, limit),
        "maxmemory_policy": info["maxmemory_policy"],
        "evicted_keys": info["evicted_keys"],
        "keys": key_counts(info)[0],
    }


@contextmanager
def translated(resource: Resource, *, sent: bool) -> Iterator[None]:
    """Redis' errors as the project's own; `sent` says whether a change may have reached the server before the connection failed."""
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise ToolFailed(f"{resource.name}: the login `monitor` is refused or may not do this: {error}") from error
    except BusyLoadingError as error:
        raise NotApplicable(f"{resource.name}: the server is still loading its data") from error
    except ReadOnlyError as error:
        raise NotApplicable(f"{resource.name}: the server is a read-only replica; act on its master") from error
    except (RedisConnectionError, RedisTimeoutError) as error:
        if sent:
            raise OutcomeUnknown(f"{resource.name}: the reply was lost: {error}") from error
        raise Unreachable(f"{resource.name}: no answer, nothing was changed: {error}") from error
    except ResponseError as error:
        raise ToolFailed(f"{resource.name}: the server refused: {error}") from error


async def read_info(client: RedisClient, own: Redis, *, sent: bool = False) -> dict[str, Any]:
    """INFO, on a tool's own connection; its errors as `translated` has them."""
    with translated(client.resource, sent=sent):
        info: dict[str, Any] = await own.info()
    return info


@asynccontextmanager
async def alone(client: RedisClient) -> AsyncIterator[Redis]:
    """A connection of one's own while no other tool changes the same server; NotApplicable while one does.

    The mark is the connection's name (CLIENT SETNAME): it needs no memory, is seen by every process, and ends with the connection.
    Of two that come at the same moment both may be refused; neither is ever let in beside the other.
    """
    async with AsyncExitStack() as stack:
        with translated(client.resource, sent=False):
            own = await stack.enter_async_context(client.redis.client())
            await own.client_setname(WORKING)
        try:
            with translated(client.resource, sent=False):
                working = [each for each in await own.client_list() if each["name"] == WORKING]
            if len(working) > 1:
                raise NotApplicable(f"{client.resource.name}: another tool is changing this server; try again when it is done")
            yield own
        finally:
            # A lost connection took its name along.
            with suppress(RedisConnectionError, RedisTimeoutError):
                await own.client_setname("")
