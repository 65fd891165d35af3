"""Faults of a virtual machine that really runs: each is injected, met by rule, healed or left alone as it should be, and taken back."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blocks.cloud_declared import CloudDeclared, SshDeclared
from blocks.credentials import Login
from blocks.schema import Inventory, Kind, Resource, Rules
from compose.google_cloud.world import ComputeDescribed, Delays, World
from tasks.catalog import load_catalog
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.google_access import GoogleCloud
from tasks.google_clients import GoogleClients
from tasks.probes.compute_engine import measure
from tasks.scenarios.stage import ShopLoads
from tests.google_cloud_world import GoogleProject, lead_to, project_playing
from tests.tasks.theatre import Theatre

pytestmark = pytest.mark.slow
VM = "shop-vm"
WORLD = World(compute=(ComputeDescribed(name=VM),), delays=Delays(operation_seconds=0.2, ingest_seconds=0))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, google_authority: Path) -> Iterator[GoogleProject]:
    """A project with one machine, behind which namespaces with an SSH server stand."""
    with project_playing(WORLD, tmp_path_factory.mktemp("google"), google_authority) as project:
        yield project


@pytest.fixture
def project(machine: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    lead_to(machine, monkeypatch)
    machine.admin.reset()
    yield machine
    assert machine.admin.violations() == []


@asynccontextmanager
async def machine_client(project: GoogleProject, **changes: object) -> AsyncIterator[ComputeClient]:
    """A client of the machine as an inventory would have it; `changes` to what it declares of its SSH."""
    plane = project.description.planes[VM]
    ssh = SshDeclared.model_validate({"host": plane.host, "port": plane.port, "host_keys": (plane.host_key,), **changes})
    user = plane.logins["monitor"]
    resource = Resource(
        name=VM, kind=Kind.COMPUTE_ENGINE, address=VM, cloud=CloudDeclared(ssh=ssh), logins={"monitor": user.username, "admin": "admin"}
    )
    inventory = Inventory(name="cloud", lab=True, resources=(resource,), rules=Rules(recover_seconds=20))
    logins = {(VM, "monitor"): Login.model_validate(user.model_dump())}
    google = GoogleClients(inventory, logins, None)
    google._cloud = GoogleCloud(project.id, project.email(), project.credentials())
    try:
        yield ComputeClient(resource, google.cloud, google.ssh(VM))
    finally:
        await google.close()


@pytest.mark.parametrize("name", ["gcp_compute_memory_pressure", "gcp_compute_frozen", "gcp_compute_start_forbidden"])
async def test_a_fault_of_a_machine_is_met_as_it_should_be(project: GoogleProject, name: str) -> None:
    async with machine_client(project) as client:
        inventory = Inventory(name="cloud", lab=True, resources=(client.resource,), rules=Rules(recover_seconds=20))
        admin = (project.description.admin_url, project.description.admin_token)
        theatre = Theatre(inventory, client.resource, client, ShopLoads(None), {(VM, "admin"): admin})
        await theatre.perform(load_catalog().scenarios[name])
        values = (await theatre.observe()).reading.values
        assert (values["state"], values["inside"], values["source"]) == ("RUNNING", "answers", "ssh")


async def test_where_ssh_fails_cloud_monitoring_tells_and_the_reading_says_so(project: GoogleProject) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq3pmjBcUmdjNyvR5QxgJ6cqT5iPVnWVuR8ZJwJqf4b"
    for declared, inside, why in (({"port": 9}, "closed", "no SSH connection"), ({"host_keys": (other,)}, "answers", "host key")):
        async with machine_client(project, **declared) as client:
            values = (await measure(client, client.resource)).values
            assert (values["inside"], values["source"]) == (inside, "monitoring")
            assert why in str(values["ssh_error"])
            assert float(str(values["memory_percent"])) > 0
            assert float(str(values["age_seconds"])) >= 0
