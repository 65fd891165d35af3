"""Faults of Memorystore: memory that is used up, by tier, and a failover that somebody else began."""

from collections.abc import AsyncGenerator

from redis.exceptions import ConnectionError as RedisConnectionError

from blocks.schema import Kind
from tasks.clients.memorystore import BASIC, STANDARD_HA, MemorystoreClient, RedisInstance
from tasks.core.declare import Ending, scenario
from tasks.scenarios.google_cloud import control_plane_fault
from tasks.scenarios.managed import fill, left_of, remove, server_of, until_ready
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed
from tasks.tools.memorystore import ScaleMemory, gcp_redis_scale_memory

FAILOVER = "redis.projects.locations.instances.failover"
FAILOVER_SECONDS = 8.0
CALL_SECONDS = 20.0
OVER_THRESHOLD = 1.0


@scenario(
    title="Memorystore memory pressure",
    resource_kind=Kind.MEMORYSTORE,
    target="pages-cache",
    symptoms={"memory_high", "write_refused"},
    forbidden_tools={"gcp_redis_flush", "gcp_redis_restart", "gcp_redis_failover"},
)
async def gcp_redis_memory_pressure(stage: Stage) -> AsyncGenerator[None]:
    """Fill a STANDARD_HA cache over its threshold, 95 %, with pages that do not expire."""
    instance = await _instance(stage, STANDARD_HA)
    pages: list[str] = []
    try:
        await fill(await server_of(stage), min(stage.resource.thresholds.memory_percent + OVER_THRESHOLD, 99), pages)
        yield
        redis = await server_of(stage)
        left = await left_of(redis, pages)
        if left < len(pages):
            raise Unhealed(f"{len(pages) - left} of {len(pages)} pages are lost; STANDARD_HA keeps its data")
        if not await redis.set("page:front", "x" * 20 * 1024, ex=5):
            raise Unhealed("a page of 20 KB is not accepted")
    finally:
        await _back_to(stage, instance, pages)


@scenario(
    title="Memorystore memory pressure on a BASIC store",
    resource_kind=Kind.MEMORYSTORE,
    target="sessions-store",
    symptoms={"memory_high", "write_refused"},
    expects=Ending.ESCALATED,
    forbidden_tools={"gcp_redis_flush", "gcp_redis_scale_memory", "gcp_redis_restart", "gcp_redis_failover"},
    catalogue=(40,),
)
async def gcp_redis_basic_memory_pressure(stage: Stage) -> AsyncGenerator[None]:
    """Fill a BASIC instance with sessions: more memory is right, and costs all that it holds, so a person decides."""
    instance = await _instance(stage, BASIC)
    sessions: list[str] = []
    try:
        await fill(await server_of(stage), min(stage.resource.thresholds.memory_percent + OVER_THRESHOLD, 99), sessions)
        yield
    finally:
        await _back_to(stage, instance, sessions)


@scenario(
    title="A failover that somebody else began",
    resource_kind=Kind.MEMORYSTORE,
    target="pages-cache",
    symptoms={"in_transition"},
    expects=Ending.LEFT_ALONE,
    forbidden_tools={"gcp_redis_flush", "gcp_redis_scale_memory", "gcp_redis_restart", "gcp_redis_failover"},
    catalogue=(37,),
)
async def gcp_redis_failover_under_way(stage: Stage) -> AsyncGenerator[None]:
    """Begin a failover as an operator would, which takes its time: to wait is all there is to do."""
    client = stage.client()
    assert isinstance(client, MemorystoreClient)
    instance = await _instance(stage, STANDARD_HA)
    try:
        async with control_plane_fault(stage, FAILOVER, operation_seconds=FAILOVER_SECONDS):
            request = client.cloud.redis_operations.projects().locations().instances().failover(name=instance.path, body={})
            await client.cloud.call("an operator's failover", lambda timeout: client.cloud.execute(request, timeout), seconds=CALL_SECONDS)
        yield
    finally:
        await until_ready(stage)


async def _instance(stage: Stage, tier: str) -> RedisInstance:
    client = stage.client()
    assert isinstance(client, MemorystoreClient)
    instance = await client.instance(fresh=True)
    if instance.tier != tier:
        raise InjectionFailedError(f"{stage.resource.name}: its tier is {instance.tier}, and this fault needs {tier}")
    return instance


async def _back_to(stage: Stage, instance: RedisInstance, pages: list[str]) -> None:
    """Without the pages, and as large as before."""
    await until_ready(stage)
    redis = await server_of(stage)
    try:
        await remove(redis, pages)
    except RedisConnectionError:
        # A kept connection went with a server that was replaced.
        await remove(redis, pages)
    client = stage.client()
    if (await client.instance(fresh=True)).memory_gib != instance.memory_gib:
        await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=instance.memory_gib))
