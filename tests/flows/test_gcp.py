"""An inventory with a project of Google Cloud through whole flows: access checked, instances found and watched, a step's progress shown."""

import asyncio
import gc
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from blocks.inventory_file import parse_inventory
from blocks.register import register
from compose.control_plane import ControlPlane
from compose.google_cloud.faults import Fault
from compose.google_cloud.world import Delays
from flows.gcp_check import gcp_check
from flows.monitor import monitor
from tasks.connecting import live
from tasks.core.models import Change, Health, Step
from tasks.execution import ending_of
from tasks.probing import probe_all
from tests.google_cloud_world import GoogleProject

NAME = "project"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What Prefect and google-auth leave open goes here, where it is expected, and not at the end of the session."""
    yield
    gc.collect()


async def registered(project: GoogleProject, identity: str = "evenkeel") -> None:
    text = f"""
name: {NAME}
records: {{url: "sqlite:///{project.directory / "records.db"}"}}
rules: {{autonomy: observe}}
resources:
  - {{name: back, kind: compute_engine, address: web-2}}
gcp:
  project: {project.id}
  service_account: ${{KEY}}
  discover: {{labels: {{app: shop}}}}
"""
    await register(parse_inventory(text, {"KEY": project.key_path(identity).read_text()}))


async def artifacts(key: str) -> list[str]:
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return [f"{one.description} {one.data}" for one in found]


@pytest.mark.slow
async def test_the_check_names_the_identity_what_it_lacks_and_the_commands(
    prefect_server: ControlPlane, google_cloud: GoogleProject
) -> None:
    await registered(google_cloud, "reader")
    state: Any = await gcp_check(NAME, return_state=True)
    assert state.is_failed()
    for lacking in ("compute.instances.start", "cloudsql.instances.update", "redis.instances.failover"):
        assert lacking in str(state.message)
    assert "compute.instances.list" not in str(state.message)
    (access,) = await artifacts(f"gcp-access-{NAME}")
    member = f"--member=serviceAccount:{google_cloud.email('reader')}"
    assert f"gcloud projects add-iam-policy-binding {google_cloud.id} {member} --role=projects/{google_cloud.id}/roles/evenkeel" in access
    assert "memorystore: 2 instance(s) seen" in access
    assert (await gcp_check(NAME, only_reading=True, return_state=True)).is_completed()
    environment = {**os.environ, "PREFECT_API_URL": prefect_server.api_url}
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows.gcp_check", NAME, env=environment, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await command.communicate()
    assert command.returncode == 1, output.decode()
    assert b"no             compute.instances.start" in output
    await registered(google_cloud)
    assert (await gcp_check(NAME, return_state=True)).is_completed()
    assert google_cloud.admin.mutations() == []


@pytest.mark.slow
async def test_what_is_found_is_watched_beside_what_is_declared_and_what_is_out_of_reach_is_told(
    prefect_server: ControlPlane, google_cloud: GoogleProject
) -> None:
    await registered(google_cloud)
    google_cloud.admin.add(Fault(method="redis.*", unreachable=("us-central1",)))
    state: Any = await monitor(NAME, sweep_every_seconds=1, window_seconds=0.5, return_state=True)
    assert state.is_completed(), state
    (found,) = await artifacts(f"discovered-{NAME}")
    assert "3 instances found beside the declared ones; not seen: 1" in found
    assert "us-central1 did not answer" in found
    (status,) = await artifacts(f"status-{NAME}")
    for name in ("web-1", "back", "orders", "pages"):
        assert f'"{name}"' in status or f"'{name}'" in status
    async with live(NAME) as opened:
        seen = {one.resource: one for one in await probe_all_of(opened)}
    assert seen["web-1"].health is Health.HEALTHY
    assert [finding.symptom for finding in seen["back"].findings] == ["terminated"]


@flow(persist_result=False)
async def probe_all_of(opened: Any) -> Any:
    return await probe_all(opened, opened.inventory.resources)


@flow(persist_result=False)
async def start_of(name: str) -> Any:
    async with live(NAME):
        return await ending_of(Step(tool="gcp_compute_start_instance", target=name, why="it is off"))


async def test_a_step_that_takes_its_time_shows_how_far_it_is(prefect_server: ControlPlane, google_cloud: GoogleProject) -> None:
    await registered(google_cloud)
    google_cloud.admin.set_delays(Delays(operation_seconds=1))
    change = await start_of("back")
    assert isinstance(change, Change)
    assert change.after["state"] == "RUNNING"
    (shown,) = await artifacts("progress-back")
    assert shown == "start of back 100.0"


async def test_without_credentials_what_is_in_the_project_is_unknown_and_the_reason_is_said(
    prefect_server: ControlPlane, google_cloud: GoogleProject
) -> None:
    await registered(google_cloud)
    google_cloud.admin.add(Fault(method="*", status=401))
    google_cloud.admin.add(Fault(method="oauth2.token", status=400))
    async with live(NAME) as opened:
        seen = await probe_all_of(opened)
    assert {one.health for one in seen} == {Health.UNKNOWN}
    assert all("refuses the credentials of" in one.summary for one in seen)
