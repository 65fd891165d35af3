"""The project's APIs through Google's own libraries, against the simulator: lists that are shared, operations, lost replies, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from blocks.cloud_declared import CloudDeclared
from blocks.kinds import Kind
from blocks.schema import Resource
from compose.google_cloud.faults import Fault
from compose.google_cloud.world import Delays
from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.google_access import GoogleCloud
from tasks.core.declare import NoArgs
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tasks.probes.compute_engine import measure
from tasks.tools.compute_engine import gcp_compute_restart_instance, gcp_compute_start_instance, gcp_compute_stop_instance
from tests.google_cloud_world import GoogleProject

START, STOP, RESET = "compute.instances.start", "compute.instances.stop", "compute.instances.reset"


def machine(name: str, **fields: Any) -> Resource:
    return Resource(name=name, kind=Kind.COMPUTE_ENGINE, address=name, **fields)


ON, OFF = machine("web-1"), machine("web-2")


@pytest.fixture
async def cloud(google_cloud: GoogleProject) -> AsyncIterator[GoogleCloud]:
    opened = GoogleCloud(google_cloud.id, google_cloud.email(), google_cloud.credentials())
    yield opened
    await opened.close()


async def test_many_probes_share_one_list_call_and_so_they_do_its_error(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    clients = [ComputeClient(resource, cloud) for resource in (ON, OFF) * 20]
    readings = await asyncio.gather(*(measure(client, client.resource) for client in clients))
    assert {(reading.values["state"], reading.values["zone"]) for reading in readings} == {
        ("RUNNING", "europe-west4-a"),
        ("TERMINATED", "us-central1-a"),
    }
    assert google_cloud.admin.calls()["compute.instances.aggregatedList"] == 1
    cloud.forget(Kind.COMPUTE_ENGINE)
    google_cloud.admin.add(Fault(method="compute.instances.aggregatedList", status=403))
    results = await asyncio.gather(*(measure(client, client.resource) for client in clients), return_exceptions=True)
    assert all(isinstance(result, ProbeBroken) and "lacks" in str(result) for result in results)
    assert google_cloud.admin.calls()["compute.instances.aggregatedList"] == 2


async def test_a_zone_that_does_not_answer_hides_only_its_own_machines(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    google_cloud.admin.add(Fault(method="compute.instances.aggregatedList", unreachable=("us-central1-a",)))
    assert (await measure(ComputeClient(ON, cloud), ON)).values["state"] == "RUNNING"
    with pytest.raises(ProbeBroken, match=r"Google does not reach us-central1-a, so nothing is known of web-2"):
        await measure(ComputeClient(OFF, cloud), OFF)
    elsewhere = machine("web-9", cloud=CloudDeclared(location="europe-west4-a"))
    assert (await measure(ComputeClient(elsewhere, cloud), elsewhere)).values == {"state": "missing"}


@pytest.mark.parametrize("kind", [Kind.CLOUD_SQL, Kind.MEMORYSTORE])
async def test_a_region_that_does_not_answer_is_named(google_cloud: GoogleProject, cloud: GoogleCloud, kind: Kind) -> None:
    google_cloud.admin.add(Fault(method="*.list", unreachable=("us-central1",)))
    found = await cloud.snapshot(kind)
    assert found.unreachable == ("us-central1",)
    assert {one.location for one in found.instances} == {"europe-west4"}


async def test_without_ssh_cloud_monitoring_tells_what_is_in_use_and_how_old_that_is(
    google_cloud: GoogleProject, cloud: GoogleCloud
) -> None:
    values = (await measure(ComputeClient(ON, cloud), ON)).values
    assert (values["inside"], values["source"]) == (None, "monitoring")
    assert 0 <= float(str(values["cpu_percent"])) <= 100
    assert float(str(values["age_seconds"])) > 0
    asked = google_cloud.admin.calls()["monitoring.projects.timeSeries.list"]
    await asyncio.gather(*(measure(ComputeClient(ON, cloud), ON) for _ in range(20)))
    assert google_cloud.admin.calls()["monitoring.projects.timeSeries.list"] == asked
    google_cloud.admin.add(Fault(method="monitoring.*", deny="monitoring.timeSeries.list"))
    fresh = GoogleCloud(google_cloud.id, google_cloud.email(), google_cloud.credentials())
    values = (await measure(ComputeClient(ON, fresh), ON)).values
    await fresh.close()
    assert (values["state"], values["source"], values["cpu_percent"]) == ("RUNNING", None, None)
    assert "lacks" in str(values["metrics_error"])


async def test_who_stopped_a_machine_is_asked_of_its_operations(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    client = ComputeClient(OFF, cloud)
    assert (await measure(client, OFF)).values["stopped_by"] is None
    await gcp_compute_start_instance(client, NoArgs())
    await gcp_compute_stop_instance(client, NoArgs())
    again = ComputeClient(OFF, cloud)
    assert (await measure(again, OFF)).values["stopped_by"] == google_cloud.email()
    google_cloud.admin.add(Fault(method="compute.zoneOperations.list", deny="compute.zoneOperations.list"))
    with pytest.raises(ProbeBroken, match=r"lacks the permission compute.zoneOperations.list"):
        await measure(ComputeClient(OFF, cloud), OFF)  # so it is not known whether it is meant to be off


async def test_start_and_stop_are_read_back_and_refused_in_the_wrong_state(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    google_cloud.admin.set_delays(Delays(operation_seconds=0.3))
    heard: list[tuple[str, float | None]] = []
    cloud.progress = lambda what, percent: heard.append((what, percent))
    client = ComputeClient(OFF, cloud)
    change = await gcp_compute_start_instance(client, NoArgs())
    assert (change.before["state"], change.after["state"], change.undo) == ("TERMINATED", "RUNNING", {})
    assert {what for what, _ in heard} == {"start of web-2"}
    assert heard[-1][1] == 100
    with pytest.raises(NotApplicable, match="RUNNING, not off"):
        await gcp_compute_start_instance(client, NoArgs())
    assert (await gcp_compute_stop_instance(client, NoArgs())).after["state"] == "TERMINATED"
    for tool in (gcp_compute_stop_instance, gcp_compute_restart_instance):
        with pytest.raises(NotApplicable, match="TERMINATED"):
            await tool(client, NoArgs())
    restarted = await gcp_compute_restart_instance(ComputeClient(ON, cloud), NoArgs())
    assert str(restarted.after["how"]).startswith("reset, operation-")
    assert [one.method for one in google_cloud.admin.mutations()] == [START, STOP, RESET]
    google_cloud.admin.change_record("web-2", labels={"evenkeel-maintenance": "new-disk"})
    with pytest.raises(NotApplicable, match="maintenance: new-disk"):
        await gcp_compute_start_instance(client, NoArgs())
    google_cloud.admin.permit("evenkeel", ("compute.instances.get", "compute.instances.list"))
    with pytest.raises(ToolFailed, match=r"lacks the permission compute.*gcloud projects add-iam-policy-binding"):
        await gcp_compute_stop_instance(ComputeClient(ON, cloud), NoArgs())


@pytest.mark.parametrize(
    ("fault", "expected", "told", "began"),
    [
        (Fault(method=START, cut=True, takes_effect=True, times=1), None, "", 1),
        (Fault(method=START, status=503, takes_effect=True, times=1), None, "", 1),
        (Fault(method=START, status=503, times=2), None, "", 1),
        (Fault(method=START, status=429, headers={"Retry-After": "1"}, times=1), None, "", 1),
        (Fault(method="compute.zoneOperations.get", status=429, headers={"Retry-After": "1"}, times=1), None, "", 1),
        (Fault(method="compute.zoneOperations.get", cut=True, times=1), None, "", 1),
        (Fault(method=START, operation="error", operation_code="ZONE_RESOURCE_POOL_EXHAUSTED"), ToolFailed, "RESOURCE_POOL_EXHAUSTED", 1),
        (Fault(method=START, status=403, reason="quotaExceeded"), ToolFailed, "quota", 0),
        (Fault(method=START, deny=START), ToolFailed, "lacks the permission compute.instances.start", 0),
        (Fault(method=START, status=404), ToolFailed, "no such thing", 0),
        (Fault(method="compute.instances.get", status=401), ToolFailed, "refuses the credentials", 0),
    ],
    ids=["reply cut", "503 after", "503 before", "429", "429 polling", "polling cut", "no room", "quota", "403", "404", "401"],
)  # fmt: skip
async def test_whatever_fails_no_start_is_sent_that_acts_twice(
    google_cloud: GoogleProject, cloud: GoogleCloud, fault: Fault, expected: type[EvenkeelError] | None, told: str, began: int
) -> None:
    google_cloud.admin.add(fault)
    client = ComputeClient(OFF, cloud)
    if expected is None:
        assert (await gcp_compute_start_instance(client, NoArgs())).after["state"] == "RUNNING"
    else:
        with pytest.raises(expected, match=told):
            await gcp_compute_start_instance(client, NoArgs())
    assert sum(one.outcome == "began" for one in google_cloud.admin.mutations(START)) == began


async def test_a_reply_that_is_lost_leads_to_the_operation_it_began_or_to_an_unknown_outcome_and_never_to_a_second_one(
    google_cloud: GoogleProject, cloud: GoogleCloud
) -> None:
    client = CloudSqlClient(resource=Resource(name="orders", kind=Kind.CLOUD_SQL, address="orders"), cloud=cloud)
    for faults in ((), (Fault(method="sql.operations.list", deny="cloudsql.instances.get", skip=1),)):
        google_cloud.admin.reset()
        for fault in (Fault(method="sql.instances.restart", cut=True, takes_effect=True, times=1), *faults):
            google_cloud.admin.add(fault)
        restart = client.carry_out("restart", "RESTART", lambda api: api.restart(project=cloud.project, instance="orders"), seconds=30)
        if faults:
            with pytest.raises(OutcomeUnknown, match="the reply was lost"):
                await restart
        else:
            assert await restart
        assert len(google_cloud.admin.mutations("sql.instances.restart")) == 1


async def test_an_operation_that_is_stuck_is_given_up_and_the_next_try_takes_it_up(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    google_cloud.admin.add(Fault(method=START, operation="stuck"))
    client = ComputeClient(OFF, cloud)
    heard = asyncio.Event()
    told: list[str] = []

    def hear(what: str, _percent: float | None) -> None:
        told.append(what)
        heard.set()

    cloud.progress = hear
    for _ in range(2):
        task = asyncio.ensure_future(gcp_compute_start_instance(client, NoArgs()))
        async with asyncio.timeout(30):
            await heard.wait()
        heard.clear()
        task.cancel()  # as the deadline of a step does, or the end of the process
        await asyncio.gather(task, return_exceptions=True)
    assert len(google_cloud.admin.mutations(START)) == 1
    assert any("taken up where it stands" in what for what in told)


async def test_a_token_that_expires_is_renewed_and_a_key_that_is_revoked_is_told(google_cloud: GoogleProject, cloud: GoogleCloud) -> None:
    await cloud.snapshot(Kind.CLOUD_SQL)
    google_cloud.admin.revoke_tokens()
    cloud.forget(Kind.CLOUD_SQL)
    assert len((await cloud.snapshot(Kind.CLOUD_SQL)).instances) == 2
    cloud.forget(Kind.CLOUD_SQL)
    google_cloud.admin.add(Fault(method="sql.instances.list", status=401))
    google_cloud.admin.add(Fault(method="oauth2.token", status=400))
    with pytest.raises(ToolFailed, match=f"refuses the credentials of {google_cloud.email()}"):
        await cloud.snapshot(Kind.CLOUD_SQL)


async def test_a_project_out_of_reach_is_unreachable_within_the_deadline(
    google_cloud: GoogleProject, cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(Unreachable):
        await cloud.call("list", lambda timeout: cloud.instances.list(project="p", zone="z", timeout=timeout, retry=None), seconds=1)
    assert time.monotonic() - started < 20
    with pytest.raises(OutcomeUnknown, match="still runs after"):
        await _wait_for_nothing(cloud)


async def _wait_for_nothing(cloud: GoogleCloud) -> None:
    from tasks.clients.google_operations import Operation

    def look(_timeout: float) -> Operation:
        return Operation("operation-1", "start", done=False, look=look)

    await cloud.wait("start of vm", look(0), seconds=0.5)
