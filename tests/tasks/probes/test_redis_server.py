"""The Redis probe against a real Valkey, and its judgement as a pure function."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from blocks.schema import Kind, Resource, Role
from compose.description import LabDescription
from tasks.clients.polling import poll
from tasks.clients.redis_server import RedisClient, open_redis
from tasks.clients.runtime import SupervisedProcess
from tasks.core.errors import ProbeBroken
from tasks.core.models import Health, Reading
from tasks.core.redis_judgement import judge
from tasks.probes.redis_server import KEY, measure

MIB = 2**20
LONG_SCRIPT = "while true do end"


def resource_at(host: str, port: int, **fields: Any) -> Resource:
    return Resource(name="cache", kind=Kind.REDIS, address=f"{host}:{port}", role=Role.CACHE, **fields)


@asynccontextmanager
async def client_at(host: str, port: int, **login: str) -> AsyncIterator[RedisClient]:
    client = RedisClient(open_redis(host, port, **login), resource_at(host, port))
    try:
        yield client
    finally:
        await client.close()


def client_of(lab: LabDescription) -> AbstractAsyncContextManager[RedisClient]:
    return client_at(lab.cache.host, lab.cache.port, username=lab.cache.username, password=lab.cache.password)


def symptoms(reading: Reading, resource: Resource) -> dict[str, Health]:
    return {finding.symptom: finding.health for finding in judge(reading, resource)}


@pytest.fixture
def runtime(fresh_cache: LabDescription) -> SupervisedProcess:
    return SupervisedProcess(str(fresh_cache.control), "cache")


@pytest.fixture
async def second(fresh_cache: LabDescription, runtime: SupervisedProcess) -> AsyncIterator[Redis]:
    """A connection apart from the probe's, to a server at its baseline."""
    if (await runtime.status()).state != "running":
        await runtime.start()
    async with Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as redis:
        await redis.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        await redis.config_set("maxmemory", 64 * MIB)
        await redis.config_set("maxclients", 200)
        yield redis


@pytest.fixture
async def client(fresh_cache: LabDescription, second: Redis) -> AsyncIterator[RedisClient]:
    async with client_of(fresh_cache) as opened:
        yield opened


async def test_a_healthy_server_reads_as_its_own_figures_say(client: RedisClient, second: Redis) -> None:
    reading = await measure(client, client.resource)

    info = await second.info()
    values = reading.values
    assert values["answers"] == "yes"
    assert values["write_ok"] is True
    assert values["maxmemory_mib"] == 64
    assert values["used_memory_mib"] == pytest.approx(info["used_memory"] / MIB, abs=1)
    assert values["memory_percent"] == pytest.approx(100 * info["used_memory"] / info["maxmemory"], abs=2)
    assert values["maxclients"] == info["maxclients"] == 200
    assert values["connected_clients"] == info["connected_clients"]
    assert values["role"] == "master"
    assert values["maxmemory_policy"] == "noeviction"
    assert judge(reading, client.resource) == ()
    assert await second.exists(KEY) == 0


async def test_without_a_limit_there_is_no_share(client: RedisClient, second: Redis) -> None:
    await second.config_set("maxmemory", 0)

    reading = await measure(client, client.resource)

    assert reading.values["memory_percent"] is None
    assert judge(reading, client.resource) == ()


async def test_a_full_server_refuses_the_write(client: RedisClient, second: Redis) -> None:
    await fill(second, 64 * MIB)

    reading = await measure(client, client.resource)

    assert symptoms(reading, client.resource) == {"write_refused": Health.FAILED, "memory_high": Health.DEGRADED}
    assert str(reading.values["write_error"]).startswith("OOM ")
    assert await second.exists(KEY) == 0


async def fill(redis: Redis, octets: int) -> None:
    """Pages of 100 KB until the server counts that much, or refuses more."""
    page = 0
    while (await redis.info("memory"))["used_memory"] < octets - 50_000:
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(20):
                page += 1
                pipeline.set(f"page:{page}", "x" * 100_000)
            if any(isinstance(reply, Exception) for reply in await pipeline.execute(raise_on_error=False)):
                return


async def test_a_stopped_server_is_down_and_measured_again_when_it_is_back(
    client: RedisClient, second: Redis, runtime: SupervisedProcess
) -> None:
    assert judge(await measure(client, client.resource), client.resource) == ()
    await runtime.stop()

    down = await measure(client, client.resource)
    await runtime.start()
    back = await measure(client, client.resource)

    assert down.values["answers"] == "refused"
    assert symptoms(down, client.resource) == {"down": Health.FAILED}
    assert judge(back, client.resource) == ()


async def test_a_restart_between_two_measurements_is_no_finding(client: RedisClient, runtime: SupervisedProcess) -> None:
    await measure(client, client.resource)
    await runtime.restart()

    assert judge(await measure(client, client.resource), client.resource) == ()


async def test_a_frozen_server_delays_nobody_longer_than_its_deadline(client: RedisClient, runtime: SupervisedProcess) -> None:
    await measure(client, client.resource)
    await runtime.signal("SIGSTOP")
    try:
        started = time.monotonic()
        readings = await asyncio.gather(*(measure(client, client.resource) for _ in range(50)))
        took = time.monotonic() - started
    finally:
        await runtime.signal("SIGCONT")

    assert [reading.values["answers"] for reading in readings] == ["timeout"] * 50
    assert symptoms(readings[0], client.resource) == {"unresponsive": Health.FAILED}
    assert took < 1.9
    assert judge(await measure(client, client.resource), client.resource) == ()


async def test_many_share_one_connection(client: RedisClient, second: Redis) -> None:
    before = (await second.info("clients"))["connected_clients"]

    readings = await asyncio.gather(*(measure(client, client.resource) for _ in range(200)))

    assert all(judge(reading, client.resource) == () for reading in readings)
    assert (await second.info("clients"))["connected_clients"] <= before + 1
    assert sorted(float(str(reading.values["latency_seconds"])) for reading in readings)[100] < 0.1


async def test_a_cancelled_measurement_leaves_the_next_one_right(client: RedisClient, runtime: SupervisedProcess) -> None:
    await measure(client, client.resource)
    await runtime.signal("SIGSTOP")
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await measure(client, client.resource)
    finally:
        await runtime.signal("SIGCONT")

    assert (await measure(client, client.resource)).values["maxmemory_mib"] == 64


async def test_a_wrong_password_is_a_broken_probe_that_tells_no_secret(fresh_cache: LabDescription, second: Redis) -> None:
    async with client_at(fresh_cache.cache.host, fresh_cache.cache.port, username="evenkeel", password="wrong-secret") as stranger:
        with pytest.raises(ProbeBroken, match="login `monitor` is refused") as caught:
            await measure(stranger, stranger.resource)

    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize("lacking", ["-info", "-set"])
async def test_a_missing_permission_is_a_broken_probe(lacking: str, fresh_cache: LabDescription, second: Redis) -> None:
    await second.acl_setuser("limited", enabled=True, passwords=["+limited"], keys=["*"], commands=["+@all", lacking], reset=True)
    try:
        async with client_at(fresh_cache.cache.host, fresh_cache.cache.port, username="limited", password="limited") as limited:
            with pytest.raises(ProbeBroken, match="lacks a permission"):
                await measure(limited, limited.resource)
    finally:
        await second.acl_deluser("limited")


async def test_a_name_that_does_not_resolve_is_a_broken_probe() -> None:
    async with client_at("nowhere.invalid", 6379) as nowhere:
        with pytest.raises(ProbeBroken, match="does not resolve"):
            await measure(nowhere, nowhere.resource)


async def test_another_server_on_the_port_is_a_broken_probe() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, client_at(host, port) as stranger:
        with pytest.raises(ProbeBroken, match="no Redis"):
            await measure(stranger, stranger.resource)


async def test_nothing_listening_is_down() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        async with client_at(*reserved.getsockname()) as nobody:
            reading = await measure(nobody, nobody.resource)

    assert symptoms(reading, nobody.resource) == {"down": Health.FAILED}


async def test_used_up_clients_are_told_by_share_and_by_a_probe_turned_away(
    fresh_cache: LabDescription, client: RedisClient, second: Redis
) -> None:
    await measure(client, client.resource)
    await second.config_set("maxclients", 20)
    async with AsyncExitStack() as stack:
        for _ in range(30):
            idle = await stack.enter_async_context(client_of(fresh_cache))
            try:
                await idle.redis.ping()
            except RedisConnectionError:
                break
        inside = await measure(client, client.resource)
        async with client_of(fresh_cache) as late:
            outside = await measure(late, late.resource)

    assert inside.values["clients_percent"] == 100
    assert symptoms(inside, client.resource) == {"clients_exhausted": Health.FAILED}
    assert symptoms(outside, client.resource) == {"clients_exhausted": Health.FAILED}


async def test_a_save_that_fails_stops_writes_and_is_told(fresh_cache: LabDescription, client: RedisClient, second: Redis) -> None:
    obstacle = fresh_cache.cache.config_path.parent / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    try:
        await second.bgsave(schedule=False)
        assert await poll(lambda: last_save(second, "err"), seconds=5)
        reading = await measure(client, client.resource)
    finally:
        obstacle.rmdir()
        await second.bgsave(schedule=False)
        assert await poll(lambda: last_save(second, "ok"), seconds=5)

    assert symptoms(reading, client.resource) == {"write_refused": Health.FAILED, "persistence_failing": Health.DEGRADED}
    assert str(reading.values["write_error"]).startswith("MISCONF")


async def last_save(redis: Redis, status: str) -> bool | None:
    info = await redis.info("persistence")
    return True if not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] == status else None


async def test_a_script_in_the_way_is_told_from_a_frozen_server(fresh_cache: LabDescription, client: RedisClient, second: Redis) -> None:
    await second.config_set("busy-reply-threshold", 10)
    async with Redis.from_url(fresh_cache.cache.url("monitor"), socket_timeout=30, protocol=2) as other:
        script = asyncio.create_task(run_script(other))
        try:

            async def blocked() -> Reading | None:
                found = await measure(client, client.resource)
                return found if found.values.get("blocked_by_script") else None

            reading = await poll(blocked, seconds=5)
        finally:
            await second.script_kill()
            await script
            await second.config_set("busy-reply-threshold", 500)

    assert reading is not None
    assert symptoms(reading, client.resource) == {"script_blocking": Health.FAILED}


async def run_script(redis: Redis) -> None:
    with pytest.raises(ResponseError, match="Script killed"):
        await redis.eval(LONG_SCRIPT, 0)


async def test_a_replica_refuses_the_write(client: RedisClient, second: Redis) -> None:
    await second.replicaof("127.0.0.1", 1)
    try:
        reading = await measure(client, client.resource)
    finally:
        await second.replicaof("NO", "ONE")

    assert reading.values["role"] == "replica"
    assert str(reading.values["write_error"]).startswith("READONLY")
    assert symptoms(reading, client.resource) == {"write_refused": Health.FAILED}


async def test_a_loading_server_is_measured_while_it_refuses_writes(client: RedisClient, second: Redis, runtime: SupervisedProcess) -> None:
    async with second.pipeline(transaction=False) as pipeline:
        for number in range(1000):
            pipeline.set(f"page:{number}", "x" * 10_000)
        await pipeline.execute()
    slowly = {"key-load-delay": 1000, "loading-process-events-interval-bytes": 1024}
    for name, value in slowly.items():
        await second.config_set(name, value)
    await second.config_rewrite()
    restart = asyncio.create_task(runtime.restart())
    try:

        async def loading() -> Reading | None:
            found = await measure(client, client.resource)
            return found if found.values.get("loading") else None

        reading = await poll(loading, seconds=10)
    finally:
        await restart
        await second.config_set("key-load-delay", 0)
        await second.config_set("loading-process-events-interval-bytes", 2 * MIB)
        await second.config_rewrite()

    assert reading is not None
    assert str(reading.values["write_error"]).startswith("LOADING")
    assert symptoms(reading, client.resource)["write_refused"] is Health.FAILED
