"""A tool for an append-only file that keeps Redis from starting."""

import asyncio
from collections.abc import Mapping

from pydantic import JsonValue

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Risk
from tasks.clients.redis_aof import Repaired, last_increment, repair
from tasks.clients.redis_server import RedisClient, key_counts
from tasks.clients.runtime import require_runtime
from tasks.core.declare import NoArgs, tool
from tasks.core.errors import EvenkeelError, NotApplicable, ToolFailed
from tasks.core.models import Change, Observation
from tasks.core.redis_config import settings_of
from tasks.tools.redis_process import loaded


def last_writes(_args: Mapping[str, JsonValue], _observation: Observation) -> str:
    """What a repair loses, whatever the resource's role."""
    return "the writes after the place up to which the append-only file can be read: it leaves them out"


# DESTRUCTIVE although the broken file is kept: the server goes on without what could not be read.
@tool(
    service=Kind.REDIS,
    risk=Risk.DESTRUCTIVE,
    title="Repair the append-only file",
    timeout_seconds=90,
    symptoms={"aof_broken"},
    aim=last_writes,
)
async def redis_repair_aof(client: RedisClient, _args: NoArgs) -> Change:
    """Cut a copy of the append-only file after its last whole command, and start; the broken file stays.

    Only the increment that was written last is repaired, as valkey-check-aof --fix would; a transaction that was not finished is left
    out with the rest. NotApplicable while the server runs, where it runs as no process of this machine, or nothing is broken. ToolFailed
    where the server does not start with the copy: the broken file is in its place again.
    """
    name, runtime = client.resource.name, require_runtime(client.runtime, client.resource.name)
    if not isinstance(client.resource.runtime, ProcessRuntime):
        raise NotApplicable(f"{name}: does not run as a process of this machine, so its files can't be reached from here")
    status = await runtime.status()
    if status.state == "running":
        raise NotApplicable(f"{name}: the server runs, so its append-only file is in use; nothing was repaired")
    repaired = await asyncio.to_thread(_repair, client)
    try:
        await runtime.start()
        info = await loaded(client)
    except EvenkeelError as error:
        if (await runtime.status()).state == "running":
            raise
        repaired.put_back()
        raise ToolFailed(f"{name}: does not start with the repaired file either; the broken one is in its place again: {error}") from error
    before: dict[str, JsonValue] = {"state": status.state, "aof_bytes": repaired.size}
    after: dict[str, JsonValue] = {
        "state": (await runtime.status()).state,
        "aof_bytes": repaired.readable,
        "left_out_bytes": repaired.size - repaired.readable,
        "broken_file": str(repaired.broken),
        "keys": key_counts(info)[0],
    }
    return Change(before=before, after=after)


def _repair(client: RedisClient) -> Repaired:
    return repair(last_increment(settings_of(client.configuration())))
