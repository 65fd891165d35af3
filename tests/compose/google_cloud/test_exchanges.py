"""What evenkeel asks of Google Cloud, by the unmodified client libraries; the fixture asserts that nothing violates a document."""

import time
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import compute_v1, redis_v1
from googleapiclient.errors import HttpError

from compose.google_cloud.faults import Fault
from compose.google_cloud.world import Delays
from tests.compose.google_cloud.conftest import SECONDS, Libraries, result
from tests.google_cloud_world import GoogleProject

HERE, THERE = "europe-west4-a", "us-central1-a"
PARENT = "projects/evenkeel-lab/locations"
PAGES, QUEUE = f"{PARENT}/europe-west4/instances/pages", f"{PARENT}/us-central1/instances/queue"


def done(operation: Any, read: Any) -> Any:
    """The operation when it is done, read again and again."""
    end = time.monotonic() + SECONDS
    while operation["status"] != "DONE":
        assert time.monotonic() < end
        time.sleep(0.02)
        operation = read(project="evenkeel-lab", operation=operation["name"]).execute()
    return operation


def status(libraries: Libraries, name: str, zone: str) -> str:
    """The machine's, asked for anew."""
    return str(libraries.instances.get(project="evenkeel-lab", zone=zone, instance=name).status)


def test_compute_engine_lists_starts_stops_and_resets(google_cloud: GoogleProject, libraries: Libraries) -> None:
    project, instances = google_cloud.id, libraries.instances
    scopes = dict(instances.aggregated_list(project=project))
    assert {place: [one.name for one in scope.instances] for place, scope in scopes.items() if scope.instances} == {
        f"zones/{HERE}": ["web-1"],
        f"zones/{THERE}": ["web-2"],
    }
    request = compute_v1.ListInstancesRequest(project=project, zone=HERE, filter="labels.app=shop AND status=RUNNING")
    assert [one.name for one in instances.list(request)] == ["web-1"]

    zones = {"web-1": HERE, "web-2": THERE}
    for name, change, after in (("web-2", instances.start_unary, "RUNNING"), ("web-1", instances.stop_unary, "TERMINATED")):
        operation = change(project=project, zone=zones[name], instance=name)
        finished = libraries.operations.wait(project=project, zone=zones[name], operation=operation.name)
        assert (finished.status, finished.progress, finished.error.errors) == (compute_v1.Operation.Status.DONE, 100, [])
        assert status(libraries, name, zones[name]) == after
    with pytest.raises(exceptions.BadRequest, match="not ready"):
        instances.reset_unary(project=project, zone=HERE, instance="web-1")
    operation = instances.reset_unary(project=project, zone=THERE, instance="web-2")
    libraries.operations.wait(project=project, zone=THERE, operation=operation.name)
    request = compute_v1.ListZoneOperationsRequest(project=project, zone=THERE, order_by="creationTimestamp desc")
    assert [one.operation_type for one in libraries.operations.list(request)] == ["reset", "start"]
    assert [one.outcome for one in google_cloud.admin.mutations()] == ["began", "began", "refused 400", "began"]


def test_compute_engine_does_a_request_of_one_id_once_and_one_thing_at_a_time(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.set_delays(Delays(operation_seconds=0.5))
    request = compute_v1.StopInstanceRequest(
        project=google_cloud.id, zone=HERE, instance="web-1", request_id="4b3a1f1e-0d24-4f0a-9c5c-0f6f8a8f2f11"
    )
    first, again = libraries.instances.stop_unary(request), libraries.instances.stop_unary(request)
    assert first.name == again.name
    assert status(libraries, "web-1", HERE) == "STOPPING"
    with pytest.raises(exceptions.BadRequest, match="not ready"):
        libraries.instances.start_unary(project=google_cloud.id, zone=HERE, instance="web-1")
    assert [one.outcome for one in google_cloud.admin.mutations("compute.instances.stop")] == ["began", "repeated"]
    libraries.operations.wait(project=google_cloud.id, zone=HERE, operation=first.name)
    assert status(libraries, "web-1", HERE) == "TERMINATED"


def test_cloud_sql_lists_patches_and_restarts_one_at_a_time(google_cloud: GoogleProject, libraries: Libraries) -> None:
    project, instances, operations = google_cloud.id, libraries.sql.instances(), libraries.sql.operations()
    assert [one["name"] for one in instances.list(project=project).execute()["items"]] == ["orders", "ledger"]
    filtered = instances.list(project=project, filter="settings.userLabels.app:shop").execute()
    assert [one["name"] for one in filtered["items"]] == ["orders"]

    body = {"settings": {"tier": "db-custom-2-7680", "dataDiskSizeGb": "20", "settingsVersion": "1"}}
    operation = instances.patch(project=project, instance="orders", body=body).execute()
    with pytest.raises(HttpError, match="already in progress") as busy:
        instances.restart(project=project, instance="orders").execute()
    assert busy.value.status_code == 409
    assert done(operation, operations.get).get("error") is None
    settings = instances.get(project=project, instance="orders").execute()["settings"]
    assert (settings["tier"], settings["dataDiskSizeGb"], settings["settingsVersion"]) == ("db-custom-2-7680", "20", "2")

    for wrong, code in (
        ({"tier": "db-giant"}, 400),
        ({"dataDiskSizeGb": "10"}, 400),
        ({"tier": "db-g1-small", "settingsVersion": "1"}, 412),
    ):
        with pytest.raises(HttpError) as refused:
            instances.patch(project=project, instance="orders", body={"settings": wrong}).execute()
        assert refused.value.status_code == code
    done(instances.restart(project=project, instance="orders").execute(), operations.get)
    kinds = [one["operationType"] for one in operations.list(project=project, instance="orders").execute()["items"]]
    assert kinds == ["RESTART", "UPDATE"]

    with pytest.raises(HttpError, match="high availability"):
        instances.failover(project=project, instance="orders", body={}).execute()
    done(instances.failover(project=project, instance="ledger", body={}).execute(), operations.get)
    done(instances.patch(project=project, instance="ledger", body={"settings": {"activationPolicy": "NEVER"}}).execute(), operations.get)
    with pytest.raises(HttpError, match="not running"):
        instances.restart(project=project, instance="ledger").execute()
    assert "db-custom-1-3840" in {one["tier"] for one in libraries.sql.tiers().list(project=project).execute()["items"]}


def test_memorystore_scales_and_fails_over_as_its_tier_allows(google_cloud: GoogleProject, libraries: Libraries) -> None:
    redis = libraries.redis
    found = {one.name: (one.tier, one.memory_size_gb) for one in redis.list_instances(parent=f"{PARENT}/-")}
    assert found == {PAGES: (redis_v1.Instance.Tier.STANDARD_HA, 1), QUEUE: (redis_v1.Instance.Tier.BASIC, 1)}
    wanted = {"instance": {"name": PAGES, "memory_size_gb": 3}, "update_mask": {"paths": ["memory_size_gb"]}}
    scaling = redis.update_instance(request=wanted)
    with pytest.raises(exceptions.Conflict, match="unable to queue"):
        redis.update_instance(request=wanted)
    assert result(scaling).memory_size_gb == 3
    assert scaling.metadata.verb == "update"
    mode = redis_v1.FailoverInstanceRequest.DataProtectionMode.LIMITED_DATA_LOSS
    over = result(redis.failover_instance(request={"name": PAGES, "data_protection_mode": mode}))
    assert over.state == redis_v1.Instance.State.READY
    with pytest.raises(exceptions.BadRequest, match="STANDARD_HA"):
        redis.failover_instance(name=QUEUE)
    operations = libraries.discovered("redis", "v1").projects().locations().operations()
    listed = operations.list(name=f"{PARENT}/europe-west4").execute()["operations"]
    assert [(one["metadata"]["verb"], one["done"]) for one in listed] == [("failover", True), ("update", True)]


def test_monitoring_shows_points_only_when_they_are_old_enough(google_cloud: GoogleProject, libraries: Libraries) -> None:
    def asked(filtered: str, seconds: int = 900) -> Any:
        now = int(time.time())
        interval = {"start_time": {"seconds": now - seconds}, "end_time": {"seconds": now}}
        return list(
            libraries.monitoring.list_time_series(request={"name": f"projects/{google_cloud.id}", "filter": filtered, "interval": interval})
        )

    (cpu,) = asked('metric.type = "compute.googleapis.com/instance/cpu/utilization"')  # the other machine is off
    assert (cpu.metric.labels["instance_name"], cpu.resource.type, len(cpu.points)) == ("web-1", "gce_instance", 15)
    assert cpu.points[0].interval.end_time > cpu.points[-1].interval.end_time
    memory = 'metric.type = "agent.googleapis.com/memory/percent_used" AND metric.labels.state = "used"'
    assert len(asked(memory)) == 1
    ratio = f'metric.type = "redis.googleapis.com/stats/memory/usage_ratio" AND resource.labels.instance_id = one_of("{PAGES}", "x")'
    assert [one.resource.labels["instance_id"] for one in asked(ratio)] == [PAGES]
    backends = asked('metric.type = "cloudsql.googleapis.com/database/postgresql/num_backends"')
    assert {one.resource.labels["database_id"] for one in backends} == {"evenkeel-lab:orders", "evenkeel-lab:ledger"}
    assert all(one.value_type == 2 and one.points[0].value.int64_value for one in backends)

    google_cloud.admin.set_delays(Delays(ingest_seconds=240))
    assert asked(memory, seconds=180) == []
    newest = asked(memory)[0].points[0].interval.end_time.timestamp()
    assert time.time() - newest >= 240
    google_cloud.admin.set_delays(Delays(ingest_seconds=0))
    google_cloud.admin.add(Fault(method="monitoring.*", metric_gap_seconds=600))
    assert time.time() - asked(memory)[0].points[0].interval.end_time.timestamp() >= 600


def test_lists_come_in_pages_and_name_what_did_not_answer(google_cloud: GoogleProject, libraries: Libraries) -> None:
    request = compute_v1.AggregatedListInstancesRequest(project=google_cloud.id, max_results=1)
    pages = list(libraries.instances.aggregated_list(request).pages)
    assert [sum(len(scope.instances) for scope in page.items.values()) for page in pages] == [1, 1]
    google_cloud.admin.add(Fault(unreachable=(THERE, "us-central1")))
    (page,) = libraries.instances.aggregated_list(project=google_cloud.id).pages
    warning: Any = page.items[f"zones/{THERE}"].warning
    assert (page.unreachables, warning.code) == ([f"zones/{THERE}"], "UNREACHABLE")
    answer = libraries.sql.instances().list(project=google_cloud.id).execute()
    assert [(one["code"], one["region"]) for one in answer["warnings"]] == [("REGION_UNREACHABLE", "us-central1")]
    (listed,) = libraries.redis.list_instances(parent=f"{PARENT}/-").pages
    assert (listed.unreachable, [one.name for one in listed.instances]) == (["us-central1"], [PAGES, f"{PARENT}/us-central1/instances/-"])


def test_places_and_permissions_can_be_asked_for(google_cloud: GoogleProject, libraries: Libraries) -> None:
    compute = libraries.discovered("compute", "v1")
    assert THERE in {one["name"] for one in compute.zones().list(project=google_cloud.id).execute()["items"]}
    assert "europe-west4" in {one["name"] for one in compute.regions().list(project=google_cloud.id).execute()["items"]}
    asked = ["compute.instances.get", "redis.instances.getAuthString"]
    for version, resource in (("v1", google_cloud.id), ("v3", f"projects/{google_cloud.id}")):
        projects = libraries.discovered("cloudresourcemanager", version).projects()
        answer = projects.testIamPermissions(resource=resource, body={"permissions": asked}).execute()
        assert answer == {"permissions": ["compute.instances.get"]}
