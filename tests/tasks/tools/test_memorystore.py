"""Memorystore's probe and tools: the API simulated at the wire, the data on real servers, every effect by an independent query."""

import asyncio
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from blocks.schema import Limits, Role
from compose.google_cloud.faults import Fault
from compose.google_cloud.world import FULL, Delays
from tasks.clients.login import Login
from tasks.clients.memorystore import MemorystoreClient
from tasks.clients.polling import poll
from tasks.core.declare import NoArgs, declaration_of
from tasks.core.errors import NotApplicable, ProbeBroken, ToolFailed, Unreachable
from tasks.core.memorystore_judgement import judge
from tasks.probes.memorystore import measure
from tasks.tools.memorystore import ScaleMemory, gcp_redis_failover, gcp_redis_flush, gcp_redis_restart, gcp_redis_scale_memory
from tests.google_cloud_world import GoogleProject, lead_to
from tests.managed_world import BASIC, REPLICATED, direct_redis, managed_project, redis_client
from tests.tasks.ssh_under_test import SshServer, ssh_server
from tests.tasks.tools.test_cloud_sql import through

PATCH, FAILOVER = "redis.projects.locations.instances.patch", "redis.projects.locations.instances.failover"
SLOW = Delays(operation_seconds=1.5, ingest_seconds=0)


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory, google_authority: Path) -> Iterator[GoogleProject]:
    with managed_project(tmp_path_factory, google_authority, REPLICATED, BASIC) as project:
        yield project


@pytest.fixture
def project(playing: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    lead_to(playing, monkeypatch)
    playing.admin.reset()
    yield playing
    assert playing.admin.violations() == []


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("machine")) as running:
        yield running


async def measured(client: MemorystoreClient) -> tuple[dict[str, Any], set[str]]:
    reading = await measure(client, client.resource)
    return dict(reading.values), {finding.symptom for finding in judge(reading, client.resource)}


async def filled(project: GoogleProject, instance: str, percent: float = 96) -> int:
    """Fill the server to a share of its maxmemory with pages that do not expire; how many."""
    async with direct_redis(project, instance) as redis:
        await redis.flushall()
        pages = 0
        while True:
            info = await redis.info("memory")
            room = info["maxmemory"] * percent / 100 - (info["used_memory"] - info.get("mem_not_counted_for_evict", 0))
            if room <= 0:
                return pages
            size = 16 * 1024 if room > 64 * 1024 else 1024
            async with redis.pipeline(transaction=False) as pipeline:
                for _ in range(max(1, min(200, int(room // (2 * size))))):
                    pipeline.set(f"page:{secrets.token_hex(8)}", b"x" * size)
                    pages += 1
                await pipeline.execute()


async def keys_in(project: GoogleProject, instance: str) -> int:
    async with direct_redis(project, instance) as redis:
        return int(await redis.dbsize())


async def limit_of(project: GoogleProject, instance: str) -> int:
    async with direct_redis(project, instance) as redis:
        return int((await redis.info("memory"))["maxmemory"])


async def test_the_reading_says_where_each_value_comes_from(project: GoogleProject, machine: SshServer) -> None:
    await filled(project, REPLICATED)
    async with through(machine) as way, redis_client(project, REPLICATED, way=way) as client:
        values, symptoms = await measured(client)
        assert symptoms == {"memory_high"}
        assert (values["tier"], values["memory_gib"], values["answers"], values["write_ok"]) == ("STANDARD_HA", 1, "yes", True)
        assert values["sources"]["memory_percent"] == "Redis, through shop-vm"
        assert 95 <= values["memory_percent"] <= 100
        assert values["maxmemory_mib"] == await limit_of(project, REPLICATED) / 2**20
    # No way to it: what Cloud Monitoring has stands in, with its age.
    async with through(machine, port=1) as way:

        async def seen() -> dict[str, Any] | None:
            async with redis_client(project, REPLICATED, way=way) as client:
                values, symptoms = await measured(client)
            return values if "memory_high" in symptoms else None

        found = await poll(seen, seconds=30, every_seconds=0.2)
        assert found is not None
        assert "shop-vm" in found["data_plane_error"]
        assert found["sources"]["memory_percent"].startswith("Cloud Monitoring, ")
        assert found["memory_percent_age_seconds"] < 60
        assert "answers" not in found
        async with redis_client(project, REPLICATED, way=way) as client:
            with pytest.raises(Unreachable):
                await gcp_redis_flush(client, NoArgs())
    wrong = Login("default", "hunter2")
    async with redis_client(project, REPLICATED, monitor=wrong) as client:
        with pytest.raises(ProbeBroken, match=r"the AUTH string in logins\.monitor is refused") as broken:
            await measured(client)
        assert "hunter2" not in str(broken.value)
    assert await keys_in(project, REPLICATED) > 0


@pytest.mark.slow
async def test_a_frozen_machine_in_between_is_not_taken_for_a_silent_server(project: GoogleProject, machine: SshServer) -> None:
    async with through(machine) as way, redis_client(project, REPLICATED, way=way) as client:
        assert (await measured(client))[0]["answers"] == "yes"
        machine.send(signal.SIGSTOP)
        try:
            values, symptoms = await measured(client)
        finally:
            machine.send(signal.SIGCONT)
        assert "answers" not in values
        assert "shop-vm" in values["data_plane_error"]
        assert not symptoms & {"unresponsive", "down"}

        async def answers() -> bool | None:
            return (await measured(client))[0].get("answers") == "yes" or None

        assert await poll(answers, seconds=30, every_seconds=0.2)


async def test_standard_ha_keeps_its_data_when_it_grows_and_is_changed_once(project: GoogleProject) -> None:
    pages = await filled(project, REPLICATED)
    async with redis_client(project, REPLICATED) as client:
        with pytest.raises(NotApplicable, match=r"above limits\.memory_gib, which is 4"):
            await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=5))
        project.admin.set_delays(SLOW)
        first = asyncio.create_task(gcp_redis_scale_memory(client, ScaleMemory(memory_gib=2)))

        async def under_way() -> bool | None:
            return (await measured(client))[1] == {"in_transition"} or None

        assert await poll(under_way, seconds=20, every_seconds=0.05)
        # What comes meanwhile is refused before anything is sent; the change itself goes on without who began it.
        with pytest.raises(NotApplicable, match="its state is UPDATING"):
            await gcp_redis_failover(client, NoArgs())
        first.cancel()
        await asyncio.wait({first})

        async def ready() -> bool | None:
            return (await client.instance(fresh=True)).state == "READY" or None

        assert await poll(ready, seconds=30, every_seconds=0.1)
        project.admin.set_delays(Delays(operation_seconds=0.1, ingest_seconds=0))
        project.admin.add(Fault(method=PATCH, cut=True, takes_effect=True, times=1))
        change = await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=3))
        assert (change.before["memory_gib"], change.after["memory_gib"]) == (2, 3)
        assert change.before["keys"] == change.after["keys"] == pages == await keys_in(project, REPLICATED)
        assert await limit_of(project, REPLICATED) == 3 * 16 * 2**20
        assert (await measured(client))[1] == set()
        assert len(project.admin.mutations(PATCH)) == 2
        client.resource = client.resource.model_copy(update={"limits": Limits()})
        assert (await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=3))).after["memory_gib"] == 3
        assert len(project.admin.mutations(PATCH)) == 2
        assert (await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=1))).after["memory_gib"] == 1


async def test_basic_loses_its_data_when_it_grows_and_knows_neither_failover_nor_restart(project: GoogleProject) -> None:
    await filled(project, BASIC)
    async with redis_client(project, BASIC) as client:
        values, _ = await measured(client)
        assert values["tier"] == "BASIC"
        for tool, what in ((gcp_redis_failover, "failover"), (gcp_redis_restart, "restart")):
            with pytest.raises(NotApplicable, match=f"BASIC instance has no replica, and Google offers no {what}"):
                await tool(client, NoArgs())
        assert project.admin.mutations() == []
        change = await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=2))
        assert change.before["keys"]
        assert change.after["keys"] == 0 == await keys_in(project, BASIC)
        assert (await measured(client))[1] == set()
        # Below what is stored it does not become smaller again.
        await filled(project, BASIC, percent=80)
        with pytest.raises(NotApplicable, match="1 GiB is below what is stored"):
            await gcp_redis_scale_memory(client, ScaleMemory(memory_gib=1))
        assert len(project.admin.mutations(PATCH)) == 1


async def test_a_flush_deletes_every_key(project: GoogleProject) -> None:
    pages = await filled(project, REPLICATED, percent=50)
    async with redis_client(project, REPLICATED, role=Role.CACHE) as client:
        change = await gcp_redis_flush(client, NoArgs())
        assert (change.before["keys"], change.after["keys"]) == (pages, 0)
        assert await keys_in(project, REPLICATED) == 0
    assert project.admin.mutations() == []


@pytest.mark.slow
async def test_a_primary_that_is_down_is_failed_over(project: GoogleProject) -> None:
    async with redis_client(project, REPLICATED) as client:
        await measured(client)
        before = await run_id(project)
        assert before is not None
        change = await gcp_redis_restart(client, NoArgs())
        assert change.before["run_id"] == before != change.after["run_id"] == await run_id(project)
        project.admin.set_delays(SLOW)
        failing = asyncio.create_task(gcp_redis_failover(client, NoArgs()))

        async def failing_over() -> bool | None:
            values, symptoms = await measured(client)
            return (values["state"], symptoms) == ("FAILING_OVER", {"in_transition"}) or None

        assert await poll(failing_over, seconds=20, every_seconds=0.05)
        await failing
        assert (await measured(client))[1] == set()
        project.admin.add(Fault(method=FAILOVER, operation="error", times=1))
        with pytest.raises(ToolFailed, match="An internal error occurred"):
            await gcp_redis_failover(client, NoArgs())
        project.admin.permit("evenkeel", tuple(one for one in FULL if one != "redis.instances.failover"))
        with pytest.raises(ToolFailed, match=r"redis\.instances\.failover"):
            await gcp_redis_failover(client, NoArgs())
        project.admin.permit("evenkeel", FULL)
        project.admin.touch_plane(REPLICATED, "kill")
        values, symptoms = await measured(client)
        assert (values["state"], values["answers"], symptoms) == ("READY", "refused", {"down"})


async def run_id(project: GoogleProject) -> str | None:
    try:
        async with direct_redis(project, REPLICATED) as redis:
            return str((await redis.info("server"))["run_id"])
    except RedisError:
        return None


def test_the_permissions_are_those_that_the_simulator_asks_for() -> None:
    needed = {one for tool in (gcp_redis_scale_memory, gcp_redis_failover) for one in getattr(declaration_of(tool), "permissions", ())}
    assert needed == {
        *("redis.instances.get", "redis.instances.list", "redis.instances.update", "redis.instances.failover"),
        *("redis.operations.get", "redis.operations.list"),
    }
    assert needed <= set(FULL)
