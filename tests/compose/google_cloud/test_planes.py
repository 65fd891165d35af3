"""Memorystore's and Cloud SQL's real servers: what an operation of the API does to them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import redis

from compose.google_cloud.plane_address import free_network
from compose.google_cloud.plane_memorystore import Memorystore
from compose.google_cloud.plane_sql import CloudSql, connections_of
from compose.google_cloud.planes import PlaneFailed

pytestmark = pytest.mark.asyncio(loop_scope="module")

AUTH = "a-password"
MIB = 1 << 20


@contextmanager
def connected(plane: Memorystore) -> Iterator[redis.Redis]:
    with redis.Redis(plane.host, plane.port, password=plane.auth, socket_timeout=5, decode_responses=True) as connection:
        yield connection


def facts(plane: Memorystore) -> dict[str, Any]:
    with connected(plane) as connection:
        info: dict[str, Any] = connection.info()
        return {"maxmemory": info["maxmemory"], "role": info["role"], "keys": connection.dbsize(), "process": info["process_id"]}


def fill(plane: Memorystore, mib: int) -> None:
    with connected(plane) as connection:
        connection.mset({f"page:{number}": "x" * MIB for number in range(mib)})


async def test_a_cache_of_two_nodes_keeps_its_data_over_failover_and_resizing(tmp_path: Path) -> None:
    plane = Memorystore(tmp_path / "pages-cache", next(free_network()), "STANDARD_HA", AUTH)
    try:
        await plane.start(1)
        fill(plane, 8)
        measured = await plane.measure()
        assert measured is not None
        assert 0.5 < measured["usage_ratio"] < 0.7
        first = facts(plane)
        await plane.failover()
        second = facts(plane)
        assert (second["keys"], second["role"], second["maxmemory"]) == (8, "master", 16 * MIB)
        assert second["process"] != first["process"]
        await plane.resize(3, keeps_data=True)
        assert (facts(plane)["keys"], facts(plane)["maxmemory"]) == (8, 48 * MIB)
        assert 0.5 < await plane.stored_gib() < 0.7
        with connected(plane) as connection:
            for refused in ("CONFIG GET maxmemory", "SHUTDOWN", "REPLICAOF NO ONE"):
                with pytest.raises(redis.ResponseError, match="unknown command"):
                    connection.execute_command(refused)  # type: ignore[no-untyped-call]
        await plane.kill()
        assert (plane.running, await plane.measure()) == (False, None)
    finally:
        await plane.stop()


async def test_a_cache_of_one_node_is_empty_after_resizing_and_has_no_failover(tmp_path: Path) -> None:
    plane = Memorystore(tmp_path / "sessions", next(free_network()), "BASIC", None)
    try:
        await plane.start(1)
        fill(plane, 4)
        with pytest.raises(PlaneFailed, match="no replica"):
            await plane.failover()
        await plane.resize(2, keeps_data=False)
        assert (facts(plane)["keys"], facts(plane)["maxmemory"]) == (0, 32 * MIB)
    finally:
        await plane.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def orders(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CloudSql]:
    plane = CloudSql(tmp_path_factory.mktemp("planes") / "orders-db", next(free_network()), "orders")
    await plane.start("db-g1-small", 10)
    yield plane
    await plane.stop()


def ask(plane: CloudSql, statement: str) -> Any:
    with psycopg.connect(plane.described.conninfo("application"), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


async def test_a_database_has_the_connections_of_its_tier_and_restarts_for_another_one(orders: CloudSql) -> None:
    ask(orders, "CREATE TABLE receipts (id) AS VALUES (1)")
    assert ask(orders, "SHOW max_connections") == "50"
    await orders.change("db-custom-1-3840", 10)
    assert ask(orders, "SHOW max_connections") == "100"
    started = ask(orders, "SELECT pg_postmaster_start_time()")
    await orders.change("db-custom-1-3840", 20)
    assert ask(orders, "SELECT pg_postmaster_start_time()") == started
    await orders.kill()
    assert (orders.running, await orders.measure()) == (False, None)
    await orders.restart()
    assert ask(orders, "SELECT count(*) FROM receipts") == 1
    with pytest.raises(PlaneFailed, match="db-unheard-of"):
        await orders.change("db-unheard-of", 20)
    assert [connections_of(tier) for tier in ("db-f1-micro", "db-custom-2-7680", "db-perf-optimized-N-16")] == [25, 400, 1000]


async def test_a_databases_disk_fills_with_its_data_and_statements_come_by_the_api(orders: CloudSql) -> None:
    await orders.change("db-g1-small", 10)
    before = await orders.measure()
    ask(orders, "CREATE TABLE blobs (content text STORAGE EXTERNAL)")
    ask(orders, "INSERT INTO blobs SELECT repeat('x', 1000000) FROM generate_series(1, 40)")
    after = await orders.measure()
    assert before is not None
    assert after is not None
    # 40 MB of a disk of 160 MiB, beside what the log of the change takes.
    assert 0.2 < after["disk"] - before["disk"] < 0.7
    found = await orders.execute("orders", "SELECT count(*) AS blobs, NULL AS nothing FROM pg_class WHERE relname = 'blobs'")
    assert [name for name, _ in found.columns] == ["blobs", "nothing"]
    assert found.rows == (("1", None),)
    assert await orders.execute("orders", "SELECT pg_cancel_backend(0)") is not None
    with pytest.raises(PlaneFailed, match="syntax error"):
        await orders.execute("orders", "SELEC 1")
