"""Tools for Memorystore. Each reads its effect back from the API, or from the server.

What they have in common: an operation of the same type that is under way on the instance is taken up and not started again; ToolFailed
where Google refuses or the operation fails; NotApplicable where the instance is in the wrong state or tier; OutcomeUnknown where the end
was not seen; Unreachable where nothing was sent.
"""

from typing import Any

from pydantic import Field, JsonValue
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from blocks.schema import Kind, Risk
from tasks.clients.memorystore import BASIC, READY, STANDARD_HA, MemorystoreClient, RedisInstance
from tasks.clients.redis_server import MIB, key_counts, memory_percent, translated
from tasks.core.declare import Growth, NoArgs, ToolArgs, tool
from tasks.core.errors import EvenkeelError, NotApplicable, ToolFailed
from tasks.core.models import Change, Observation

FAILOVER_SECONDS = 600.0
SCALE_SECONDS = 1700.0
MARGIN_SECONDS = 60.0
"""What reading back may take besides."""
READS = {"redis.instances.list", "redis.instances.get"}
WORKS = {*READS, "redis.operations.get", "redis.operations.list"}


class ScaleMemory(ToolArgs):
    """The new size."""

    memory_gib: int = Field(ge=1, le=300, description="New memory in GiB, at most the resource's limits.memory_gib.")


def risk_of_scaling(observation: Observation) -> Risk:
    """A STANDARD_HA instance fails over and keeps its data; any other may lose it all."""
    return Risk.DISRUPTIVE if observation.reading.values.get("tier") == STANDARD_HA else Risk.DESTRUCTIVE


@tool(
    service=Kind.MEMORYSTORE,
    risk=Risk.DESTRUCTIVE,
    risk_of=risk_of_scaling,
    title="Change the memory",
    timeout_seconds=SCALE_SECONDS + MARGIN_SECONDS,
    symptoms={"memory_high", "write_refused"},
    growth=Growth(argument="memory_gib", measured="memory_gib", limit="memory_gib", share="memory_percent"),
    permissions={*WORKS, "redis.instances.update"},
    cost="the added GiB's price, by the hour, until somebody makes it smaller again",
)
async def gcp_redis_scale_memory(client: MemorystoreClient, args: ScaleMemory) -> Change:
    """Change the instance's memory: STANDARD_HA fails over and keeps its data, BASIC loses all of it.

    NotApplicable: above limits.memory_gib, or below what is stored. Reads back the size, and of the server the memory and the keys.
    """
    instance = _ready(client, await client.instance(fresh=True), or_in="UPDATING")
    name, most = client.resource.name, client.resource.limits.memory_gib
    if most is not None and args.memory_gib > most:
        raise NotApplicable(f"{name}: {args.memory_gib} GiB is above limits.memory_gib, which is {most}")
    before = await _shown(client, instance)
    if args.memory_gib == instance.memory_gib:
        return Change(before=before, after=before)
    share = before["memory_percent"]
    if args.memory_gib < instance.memory_gib and (not isinstance(share, float) or share * instance.memory_gib / args.memory_gib >= 100):
        stored = "an unknown part" if share is None else f"{share} %"
        raise NotApplicable(f"{name}: {args.memory_gib} GiB is below what is stored, {stored} of {instance.memory_gib} GiB")
    body = {"memorySizeGb": args.memory_gib}
    operation = await client.carry_out(
        "change of the memory",
        "update",
        instance,
        lambda api: api.patch(name=instance.path, updateMask="memorySizeGb", body=body),
        seconds=SCALE_SECONDS,
    )
    now = await client.instance(fresh=True)
    if now.memory_gib != args.memory_gib:
        raise ToolFailed(f"{name}: the size reads back as {now.memory_gib} GiB, not {args.memory_gib}; another change was under way")
    return Change(before=before, after={**await _shown(client, now), "operation": operation})


@tool(
    service=Kind.MEMORYSTORE,
    risk=Risk.DESTRUCTIVE,
    title="Delete every key",
    timeout_seconds=30,
    symptoms={"memory_high", "write_refused"},
    after=("gcp_redis_scale_memory",),
    permissions=READS,
)
async def gcp_redis_flush(client: MemorystoreClient, args: NoArgs) -> Change:
    """Delete every key of every database of the instance.

    FLUSHALL on the server itself: the API has no such call. Reads back the keys and the memory. Unreachable where there is no way to it.
    """
    instance = _ready(client, await client.instance(fresh=True))
    redis = await client.redis(instance)
    before = await _memory(client, redis, sent=False)
    with translated(client.resource, sent=True):
        await redis.flushall()
    after = await _memory(client, redis, sent=True)
    return Change(before=before, after=after)


# DISRUPTIVE: connections drop; what the replica had not received yet is lost, and more than a little of that makes Google refuse.
@tool(
    service=Kind.MEMORYSTORE,
    risk=Risk.DISRUPTIVE,
    title="Fail over to the replica",
    timeout_seconds=FAILOVER_SECONDS + MARGIN_SECONDS,
    symptoms={"down", "unresponsive"},
    permissions={*WORKS, "redis.instances.failover"},
)
async def gcp_redis_failover(client: MemorystoreClient, args: NoArgs) -> Change:
    """Let the replica of a STANDARD_HA instance take over; a BASIC instance has none.

    With limited data loss: Google refuses where the replica is too far behind. Reads back the state and when the server started.
    """
    return await _failed_over(client, "failover")


@tool(
    service=Kind.MEMORYSTORE,
    risk=Risk.DISRUPTIVE,
    title="Restart the instance",
    timeout_seconds=FAILOVER_SECONDS + MARGIN_SECONDS,
    symptoms={"down", "unresponsive"},
    permissions={*WORKS, "redis.instances.failover"},
)
async def gcp_redis_restart(client: MemorystoreClient, args: NoArgs) -> Change:
    """Restart a STANDARD_HA instance, by a failover; a BASIC instance can't be restarted.

    Google has no call that restarts an instance. Of BASIC only Google itself restarts the server: NotApplicable says so.
    """
    return await _failed_over(client, "restart")


async def _failed_over(client: MemorystoreClient, what: str) -> Change:
    instance = await client.instance(fresh=True)
    if instance.tier == BASIC:
        raise NotApplicable(
            f"{client.resource.name}: a BASIC instance has no replica, and Google offers no {what} for it; Google itself brings a node "
            "that failed back, empty. Where it stays away, a person opens a case, or moves the data to STANDARD_HA"
        )
    _ready(client, instance, or_in="FAILING_OVER")
    before = await _started(client, instance)
    body = {"dataProtectionMode": "LIMITED_DATA_LOSS"}
    operation = await client.carry_out(
        what, "failover", instance, lambda api: api.failover(name=instance.path, body=body), seconds=FAILOVER_SECONDS
    )
    now = await client.instance(fresh=True)
    return Change(before=before, after={**await _started(client, now), "operation": operation})


def _ready(client: MemorystoreClient, instance: RedisInstance, *, or_in: str = READY) -> RedisInstance:
    """The instance, where it can be changed, or is in the state of an operation under way that is taken up."""
    if instance.state not in {READY, or_in}:
        raise NotApplicable(f"{client.resource.name}: its state is {instance.state}; it can be changed only while it is {READY}")
    return instance


async def _shown(client: MemorystoreClient, instance: RedisInstance) -> dict[str, JsonValue]:
    """The size, and what the server holds where it says so."""
    shown: dict[str, JsonValue] = {"state": instance.state, "tier": instance.tier, "memory_gib": instance.memory_gib}
    try:
        return {**shown, **await _memory(client, await client.redis(instance), sent=False)}
    except EvenkeelError as error:
        return {**shown, "memory_percent": None, "keys": None, "redis_error": str(error)[:200]}


async def _memory(client: MemorystoreClient, redis: Redis, *, sent: bool) -> dict[str, JsonValue]:
    info = await _info(client, redis, sent=sent)
    used, limit = info["used_memory"] - info.get("mem_not_counted_for_evict", 0), info["maxmemory"]
    return {"used_memory_mib": round(used / MIB, 2), "memory_percent": memory_percent(used, limit), "keys": key_counts(info)[0]}


async def _started(client: MemorystoreClient, instance: RedisInstance) -> dict[str, JsonValue]:
    """The state, and which run of the server this is, where it says so."""
    shown: dict[str, JsonValue] = {"state": instance.state, "run_id": None, "keys": None}
    try:
        info = await _info(client, await client.redis(instance), sent=False)
    except EvenkeelError as error:
        return {**shown, "redis_error": str(error)[:200]}
    return {**shown, "run_id": info["run_id"], "keys": key_counts(info)[0]}


async def _info(client: MemorystoreClient, redis: Redis, *, sent: bool) -> dict[str, Any]:
    with translated(client.resource, sent=sent):
        try:
            info: dict[str, Any] = await redis.info()
        except RedisConnectionError:
            # A kept connection went with the server that was before.
            info = await redis.info()
    return info
