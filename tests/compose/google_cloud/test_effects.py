"""What the control plane does to the servers behind its instances: here the smallest there are, so that each effect can be seen."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.api_core import exceptions
from google.oauth2 import service_account
from googleapiclient.errors import HttpError

from compose.google_cloud.access import CLOUD_PLATFORM
from compose.google_cloud.planes import Planes
from compose.google_cloud.simulator import Simulator
from compose.google_cloud.world import ComputeDescribed, Delays, RedisDescribed, SqlDescribed, World
from tests.compose.google_cloud.conftest import Libraries, result
from tests.compose.google_cloud.planes_in_memory import CacheInMemory, DatabaseInMemory, MachineInMemory

T = TypeVar("T")
ZONE, REGION = "europe-west4-a", "projects/evenkeel-lab/locations/europe-west4"
WORLD = World(
    compute=(ComputeDescribed(name="vm"),),
    sql=(SqlDescribed(name="db"), SqlDescribed(name="closed", data_api=False)),
    redis=(RedisDescribed(name="small", memory_gib=2), RedisDescribed(name="pair", tier="STANDARD_HA", memory_gib=2)),
    delays=Delays(operation_seconds=0.05, ingest_seconds=0),
)


@pytest.fixture
def planes() -> Planes:
    """New ones."""
    return Planes(
        {"vm": MachineInMemory()},
        {"db": DatabaseInMemory(), "closed": DatabaseInMemory()},
        {"small": CacheInMemory(), "pair": CacheInMemory()},
    )


@pytest.fixture
async def simulator(planes: Planes, tmp_path: Path, google_authority: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulator]:
    """The control plane in this process, since a test looks at the planes."""
    async with Simulator(tmp_path, WORLD, planes, google_authority) as running:
        for name, value in running.description().environment().items():
            monkeypatch.setenv(name, value)
        yield running
        assert running.journal.violations == []


@pytest.fixture
def libraries(simulator: Simulator) -> Iterator[Libraries]:
    """As its one identity."""
    path = str(simulator.access.key_paths["evenkeel"])
    opened = Libraries(service_account.Credentials.from_service_account_file(path, scopes=[CLOUD_PLATFORM]))  # type: ignore[no-untyped-call]
    yield opened
    opened.close()


async def called(send: Callable[[], T]) -> T:
    """In a thread: the simulator has this one."""
    return await asyncio.to_thread(send)


async def settled(simulator: Simulator) -> None:
    """Every operation is done."""
    for api in ("compute", "sqladmin", "redis"):
        for operation in simulator.project.operations.of(api):
            async with asyncio.timeout(20):
                await operation.done.wait()


async def test_a_machine_is_shut_down_booted_and_reset(simulator: Simulator, libraries: Libraries) -> None:
    plane: Any = simulator.project.machines["vm"].plane
    where: Any = {"project": "evenkeel-lab", "zone": ZONE, "instance": "vm"}
    found = await called(lambda: libraries.instances.get(**where))
    assert found.network_interfaces[0].network_i_p == "10.0.0.7"
    for change, running, boots in (
        (libraries.instances.stop_unary, False, 1),
        (libraries.instances.start_unary, True, 2),
        (libraries.instances.reset_unary, True, 3),
    ):
        await called(lambda change=change: change(**where))  # type: ignore[misc]
        await settled(simulator)
        assert (plane.running, plane.boots) == (running, boots)
    await plane.shutdown()  # from within
    assert (await called(lambda: libraries.instances.get(**where))).status == "TERMINATED"
    operations = await called(lambda: list(libraries.operations.list(project="evenkeel-lab", zone=ZONE)))
    assert ("compute.instances.guestTerminate", "system") in {(one.operation_type, one.user) for one in operations}


async def test_a_database_changes_its_tier_and_runs_statements(simulator: Simulator, libraries: Libraries) -> None:
    plane: Any = simulator.project.databases["db"].plane
    instances = libraries.sql.instances()

    def asked(statement: str, name: str = "db", **others: Any) -> Any:
        body = {"sqlStatement": statement, "database": "orders", "autoIamAuthn": True, **others}
        return instances.executeSql(project="evenkeel-lab", instance=name, body=body).execute()

    answer = await called(lambda: asked("select pid, query from pg_stat_activity"))
    assert answer["results"] == [
        {
            "columns": [{"name": "pid", "type": "int4"}, {"name": "query", "type": "text"}],
            "rows": [{"values": [{"value": "7"}, {"value": "select 1"}]}, {"values": [{"value": "8"}, {"nullValue": True}]}],
        }
    ]
    wrong = await called(lambda: asked("selec", rowLimit="1"))
    assert "syntax error" in wrong["status"]["message"]  # with HTTP 200
    assert plane.statements == [("orders", "select pid, query from pg_stat_activity"), ("orders", "selec")]
    with pytest.raises(HttpError, match="not allowed"):
        await called(lambda: asked("select 1", "closed"))

    body = {"settings": {"tier": "db-custom-1-3840", "dataDiskSizeGb": "30"}}
    await called(lambda: instances.patch(project="evenkeel-lab", instance="db", body=body).execute())
    await settled(simulator)
    assert (plane.tier, plane.storage_gib) == ("db-custom-1-3840", 30)
    await called(lambda: instances.restart(project="evenkeel-lab", instance="db").execute())
    await settled(simulator)
    assert plane.starts == 2
    for activation, running in (("NEVER", False), ("ALWAYS", True)):
        body = {"settings": {"activationPolicy": activation}}
        await called(lambda body=body: instances.patch(project="evenkeel-lab", instance="db", body=body).execute())  # type: ignore[misc]
        await settled(simulator)
        assert plane.running is running


async def test_a_cache_keeps_its_data_only_with_a_replica(simulator: Simulator, libraries: Libraries) -> None:
    small: Any = simulator.project.caches["small"].plane
    pair: Any = simulator.project.caches["pair"].plane

    def scaled(name: str, gib: int) -> Any:
        instance = {"name": f"{REGION}/instances/{name}", "memory_size_gb": gib}
        return result(libraries.redis.update_instance(request={"instance": instance, "update_mask": {"paths": ["memory_size_gb"]}}))

    assert (await called(lambda: scaled("pair", 3))).memory_size_gb == 3
    assert (await called(lambda: scaled("small", 3))).memory_size_gb == 3
    assert (pair.memory_gib, pair.stored, small.memory_gib, small.stored) == (3, 1.5, 3, 0)
    with pytest.raises(exceptions.FailedPrecondition, match="larger than the requested size"):
        await called(lambda: scaled("pair", 1))
    await called(lambda: result(libraries.redis.failover_instance(name=f"{REGION}/instances/pair")))
    assert (pair.memory_gib, pair.failovers) == (3, 1)
    found = await called(lambda: libraries.redis.get_instance(name=f"{REGION}/instances/pair"))
    assert (found.host, found.port, found.state) == ("10.0.0.9", 6379, 2)


async def test_points_are_what_the_planes_measure(simulator: Simulator, libraries: Libraries) -> None:
    def newest(metric: str) -> list[float]:
        now = int(time.time()) + 1
        interval = {"start_time": {"seconds": now - 60}, "end_time": {"seconds": now}}
        request = {"name": "projects/evenkeel-lab", "filter": f'metric.type = "{metric}"', "interval": interval}
        series = libraries.monitoring.list_time_series(request=request)
        return [one.points[0].value.double_value or one.points[0].value.int64_value for one in series]

    await simulator.points.sample()
    assert await called(lambda: newest("compute.googleapis.com/instance/cpu/utilization")) == [0.5]
    assert await called(lambda: newest("cloudsql.googleapis.com/database/postgresql/num_backends")) == [9, 9]
    assert await called(lambda: newest("redis.googleapis.com/stats/memory/usage_ratio")) == [0.75, 0.75]
    simulator.points.forget()
    machine: Any = simulator.project.machines["vm"].plane
    await machine.freeze()
    await simulator.points.sample()
    assert await called(lambda: newest("agent.googleapis.com/memory/percent_used")) == []


async def test_a_reset_brings_back_what_was_described(simulator: Simulator, planes: Planes, libraries: Libraries) -> None:
    machine, database, cache = planes.machines["vm"], planes.databases["db"], planes.caches["pair"]
    await machine.freeze()
    await machine.shutdown()
    await database.kill()
    await cache.kill()
    simulator.project.machines["vm"].status = "SUSPENDED"
    await simulator.project.restore()
    assert (machine.running, database.running, cache.running, simulator.project.machines["vm"].status) == (True, True, True, "RUNNING")
    assert (await called(lambda: libraries.instances.get(project="evenkeel-lab", zone=ZONE, instance="vm"))).status == "RUNNING"


async def test_five_hundred_machines_are_listed_in_an_instant(
    tmp_path: Path, google_authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = tuple(ComputeDescribed(name=f"web-{number}", zone=f"europe-west{number % 5}-b", plane=False) for number in range(500))
    async with Simulator(tmp_path, World(compute=fleet), authority=google_authority) as simulator:
        for name, value in simulator.description().environment().items():
            monkeypatch.setenv(name, value)
        path = str(simulator.access.key_paths["evenkeel"])
        libraries = Libraries(service_account.Credentials.from_service_account_file(path, scopes=[CLOUD_PLATFORM]))  # type: ignore[no-untyped-call]
        started = time.monotonic()
        listed = await called(lambda: sum(len(scope.instances) for _, scope in libraries.instances.aggregated_list(project="evenkeel-lab")))
        took = time.monotonic() - started
        libraries.close()
        assert (listed, simulator.journal.violations) == (500, [])
    assert took < 10, "0.3 s on a quiet machine"
