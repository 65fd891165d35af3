"""A tool for a Redis server that has become a replica by accident."""

from typing import Any

from pydantic import Field, JsonValue
from redis.asyncio import Redis

from blocks.schema import Kind, Risk
from tasks.clients.redis_server import RedisClient, alone, key_counts, read_info, translated
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change

KEPT = "master"


class Promote(ToolArgs):
    """In which direction."""

    back: bool = Field(False, description="Take an earlier call of this remediation back: a replica of the same master again.")


@tool(service=Kind.REDIS, risk=Risk.REVERSIBLE, undo="redis_promote", title="Make it primary again", symptoms={"unexpected_replica"})
async def redis_promote(client: RedisClient, args: Promote) -> Change:
    """Make a server that is declared primary and became a replica take writes again; its data stays.

    NotApplicable where the inventory does not say `primary: true`, it is no replica, or its link to the master stands: that may be a
    failover, and its data is the master's by now. ToolFailed where it is a replica afterwards.
    """
    name = client.resource.name
    async with alone(client) as own:
        before = await read_info(client, own)
        if args.back:
            return await _take_back(client, own, before)
        if not client.resource.primary:
            raise NotApplicable(f"{name}: the inventory does not declare it primary; add `primary: true` where it is meant to take writes")
        if before["role"] != "slave":
            raise NotApplicable(f"{name}: is no replica, nothing was changed")
        if before["master_link_status"] == "up":
            raise NotApplicable(f"{name}: replicates from {_master(before)}, which may be a failover; a person decides")
        with translated(client.resource, sent=True):
            await own.replicaof("NO", "ONE")
        after = await read_info(client, own, sent=True)
    if after["role"] != "master":
        raise ToolFailed(f"{name}: is a replica of {_master(after)} again")
    client.kept[KEPT] = f"{before['master_host']} {before['master_port']}"
    return Change(before=_values(before), after=_values(after), undo={"back": True})


async def _take_back(client: RedisClient, own: Redis, before: dict[str, Any]) -> Change:
    master = client.kept.pop(KEPT, None)
    if master is None:
        raise NotApplicable(f"{client.resource.name}: this remediation has not promoted it, so there is nothing to take back")
    with translated(client.resource, sent=True):
        await own.replicaof(*master.split(" "))
    return Change(before=_values(before), after=_values(await read_info(client, own, sent=True)))


def _master(info: dict[str, Any]) -> str:
    return f"{info['master_host']}:{info['master_port']}"


def _values(info: dict[str, Any]) -> dict[str, JsonValue]:
    is_replica = info["role"] == "slave"
    return {
        "role": "replica" if is_replica else "master",
        "master": _master(info) if is_replica else None,
        "keys": key_counts(info)[0],
    }
