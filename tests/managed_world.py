"""A simulated project with a Cloud SQL instance and two of Memorystore behind which real servers stand, and clients of them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis.asyncio import Redis

from blocks.cloud_declared import CloudDeclared
from blocks.kinds import Kind
from blocks.schema import Limits, Resource, Role, Thresholds
from compose.google_cloud.world import Delays, RedisDescribed, SqlDescribed, World
from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.google_access import GoogleCloud
from tasks.clients.login import Login
from tasks.clients.memorystore import MemorystoreClient
from tests.google_cloud_world import GoogleProject, project_playing
from tests.managed_incidents import TIERS

SQL, REPLICATED, BASIC = "orders-db", "pages-cache", "sessions-store"
DATABASE = "orders"
WORLD = World(
    sql=(SqlDescribed(name=SQL),),
    redis=(RedisDescribed(name=REPLICATED, tier="STANDARD_HA"), RedisDescribed(name=BASIC)),
    delays=Delays(operation_seconds=0.2, ingest_seconds=0),
)


@contextmanager
def managed_project(tmp_path_factory: pytest.TempPathFactory, authority: Path, *kept: str) -> Iterator[GoogleProject]:
    """The project with those of its instances."""
    world = WORLD.model_copy(
        update={kind: tuple(one for one in getattr(WORLD, kind) if one.name in kept) for kind in ("compute", "sql", "redis")}
    )
    with project_playing(world, tmp_path_factory.mktemp("google"), authority) as project:
        yield project


def login_of(project: GoogleProject, instance: str, purpose: str) -> Login:
    """A login of the real server behind an instance."""
    login = project.description.planes[instance].logins[purpose]  # type: ignore[index]
    return Login(login.username, login.password)


@asynccontextmanager
async def opened_cloud(project: GoogleProject, identity: str = "evenkeel") -> AsyncIterator[GoogleCloud]:
    """The project's APIs."""
    cloud = GoogleCloud(project.id, project.email(identity), project.credentials(identity))
    try:
        yield cloud
    finally:
        await cloud.close()


@asynccontextmanager
async def sql_client(
    project: GoogleProject, *, logins: bool = True, limits: Limits | None = None, **changes: Any
) -> AsyncIterator[CloudSqlClient]:
    """A client of the database's instance."""
    purposes = ("monitor", "application") if logins else ()
    resource = Resource(
        name=SQL,
        kind=Kind.CLOUD_SQL,
        address=SQL,
        limits=limits or Limits(tiers=TIERS, storage_gib=40),
        thresholds=Thresholds(query_seconds=5),
        cloud=CloudDeclared(database=DATABASE),
        logins=dict.fromkeys(purposes, "somebody"),
    )
    async with opened_cloud(project) as cloud:
        client = CloudSqlClient(resource=resource, cloud=cloud, **{**{one: login_of(project, SQL, one) for one in purposes}, **changes})
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def redis_client(
    project: GoogleProject, instance: str, *, role: Role = Role.STORE, login: bool = True, **changes: Any
) -> AsyncIterator[MemorystoreClient]:
    """A client of one of the Memorystore instances."""
    resource = Resource(name=instance, kind=Kind.MEMORYSTORE, address=instance, role=role, limits=Limits(memory_gib=4))
    async with opened_cloud(project) as cloud:
        monitor = login_of(project, instance, "monitor") if login else None
        client = MemorystoreClient(**{"resource": resource, "cloud": cloud, "monitor": monitor, **changes})
        try:
            yield client
        finally:
            await client.close()


def direct_redis(project: GoogleProject, instance: str) -> Redis:
    """The server behind a Memorystore instance, apart from any client of ours."""
    plane = project.description.planes[instance]
    return Redis(host=plane.host, port=plane.port, password=login_of(project, instance, "monitor").password, protocol=2)


async def direct_sql(project: GoogleProject, application: str, purpose: str = "application") -> psycopg.AsyncConnection[Any]:
    """A session of the database behind the Cloud SQL instance, apart from any client of ours."""
    plane, login = project.description.planes[SQL], login_of(project, SQL, purpose)
    return await psycopg.AsyncConnection.connect(
        host=plane.host,
        port=plane.port,
        dbname=DATABASE,
        user=login.username,
        password=login.password,
        application_name=application,
        autocommit=True,
    )
