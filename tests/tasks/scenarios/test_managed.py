"""Faults of Cloud SQL and Memorystore, whose servers are reached through a machine: injected, met by rule as expected, taken back."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from blocks.credentials import Login
from blocks.inventory_file import parse_inventory
from compose.cloud_inventory import cloud_inventory, environment
from compose.google_cloud.world import Delays, default_world
from tasks.clients.google_access import GoogleCloud
from tasks.connecting import open_client
from tasks.google_clients import GoogleClients
from tasks.scenarios import memorystore
from tasks.scenarios.stage import ShopLoads
from tests.google_cloud_world import GoogleProject, lead_to, project_playing
from tests.managed_world import BASIC, REPLICATED, SQL
from tests.tasks.theatre import CATALOG, Theatre

pytestmark = pytest.mark.slow
REMEDY: dict[str, tuple[str, list[str], str]] = {
    "gcp_redis_memory_pressure": (REPLICATED, ["gcp_redis_scale_memory"], "redis.projects.locations.instances.patch"),
    "gcp_redis_basic_memory_pressure": (BASIC, [], ""),  # a person is asked: it would lose what it holds
    "gcp_redis_failover_under_way": (REPLICATED, [], "redis.projects.locations.instances.failover"),  # the operator's own
    "gcp_sql_connection_overload": (SQL, ["gcp_sql_kill_long_queries"], ""),
    "gcp_sql_storage_full": (SQL, [], ""),  # a person is asked: it can't be taken back
    "gcp_sql_crashed": (SQL, ["gcp_sql_restart_instance"], "sql.instances.restart"),
}
"""Fault -> its resource, the tools that rules try for it, and what reaches the API first."""


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory, google_authority: Path) -> Iterator[GoogleProject]:
    world = default_world().model_copy(update={"delays": Delays(operation_seconds=0.2, ingest_seconds=0)})
    with project_playing(world, tmp_path_factory.mktemp("google"), google_authority) as project:
        yield project


@pytest.fixture
def project(playing: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    lead_to(playing, monkeypatch)
    playing.admin.reset()
    yield playing
    assert playing.admin.violations() == []


@asynccontextmanager
async def theatre_of_cloud(project: GoogleProject, name: str) -> AsyncIterator[Theatre]:
    """The lab's resource of that name, as the cloud lab's inventory has it."""
    text = yaml.safe_dump(cloud_inventory(project.directory, project.world, project.description))
    parsed = parse_inventory(text, {**os.environ, **environment(project.world, project.description)})
    resource = parsed.inventory.resource(name)
    logins = {key: Login.model_validate(one.model_dump()) for key, one in parsed.logins.items()}
    google = GoogleClients(parsed.inventory, logins, None)
    google._cloud = GoogleCloud(project.id, project.email(), project.credentials())
    client = open_client(resource, {purpose: logins[name, purpose] for purpose in resource.logins}, google)
    keys = {key: (one.username, one.password.get_secret_value()) for key, one in logins.items()}
    try:
        yield Theatre(parsed.inventory, resource, client, ShopLoads(None), keys)
    finally:
        await client.close()
        await google.close()


def test_every_fault_of_these_modules_is_tried_here() -> None:
    modules = {"tasks.scenarios.cloud_sql", "tasks.scenarios.memorystore"}
    assert {name for name, fault in CATALOG.scenarios.items() if fault.function.__module__ in modules} == set(REMEDY)


@pytest.mark.parametrize("name", REMEDY)
async def test_a_fault_is_seen_met_as_expected_and_taken_back(project: GoogleProject, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorystore, "FAILOVER_SECONDS", 3.0)  # here it is seen at once
    instance, tools, first = REMEDY[name]
    async with theatre_of_cloud(project, instance) as theatre:
        before = (await theatre.observe()).reading.values
        assert await theatre.perform(CATALOG.scenarios[name]) == tools
        after = (await theatre.observe()).reading.values
    sizes = ("state", "tier", "memory_gib", "storage_gib")
    assert [after.get(one) for one in sizes] == [before.get(one) for one in sizes]
    changes = [one.method for one in project.admin.mutations()]
    assert changes[:1] == [first] * bool(first)
    assert len(changes) <= 2
