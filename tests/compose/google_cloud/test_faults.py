"""The fault knobs: each does what it says, to the calls that it is meant for."""

import time
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import compute_v1
from googleapiclient.errors import HttpError

from compose.google_cloud.faults import Fault, Quota
from tests.compose.google_cloud.conftest import SECONDS, Libraries, result
from tests.google_cloud_world import GoogleProject

HERE = "europe-west4-a"
PAGES = "projects/evenkeel-lab/locations/europe-west4/instances/pages"
QUEUE = "projects/evenkeel-lab/locations/us-central1/instances/queue"


def get(libraries: Libraries, **options: Any) -> compute_v1.Instance:
    """One read, sent once."""
    return libraries.instances.get(project="evenkeel-lab", zone=HERE, instance="web-1", retry=None, **options)


def test_a_refusal_has_its_status_reason_and_headers_and_ends_after_so_many(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.add(Fault(method="compute.instances.get", status=403, reason="rateLimitExceeded", times=1))
    google_cloud.admin.add(Fault(method="redis.*", target="pages", status=429, headers={"Retry-After": "7"}, skip=1))
    with pytest.raises(exceptions.Forbidden) as limited:
        get(libraries)
    assert limited.value.response.json()["error"]["errors"][0] == {
        "message": "Access denied by the fault.",
        "domain": "usageLimits",
        "reason": "rateLimitExceeded",
    }
    assert get(libraries).name == "web-1"
    libraries.redis.get_instance(name=PAGES)
    with pytest.raises(exceptions.TooManyRequests) as throttled:
        libraries.redis.get_instance(name=PAGES)
    assert throttled.value.response.headers["Retry-After"] == "7"
    libraries.redis.get_instance(name=QUEUE)


def test_a_quota_lets_so_many_calls_through(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.add(Fault(method="compute.*", quota=Quota(calls=2, seconds=600)))
    get(libraries)
    get(libraries)
    with pytest.raises(exceptions.TooManyRequests) as throttled:
        get(libraries)
    assert 1 <= int(throttled.value.response.headers["Retry-After"]) <= 601


def test_a_line_is_cut_before_or_after_the_effect(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.add(Fault(method="compute.instances.stop", cut=True, times=1))
    for outcome, status in (("cut", "RUNNING"), ("began", "STOPPING")):
        with pytest.raises(requests.exceptions.ConnectionError):
            libraries.instances.stop_unary(project=google_cloud.id, zone=HERE, instance="web-1")
        assert google_cloud.admin.mutations()[-1].outcome == outcome
        assert get(libraries).status in {status, "TERMINATED" if outcome == "began" else status}
        google_cloud.admin.add(Fault(method="compute.instances.stop", cut=True, takes_effect=True, times=1))
    google_cloud.admin.remove()
    google_cloud.admin.add(Fault(method="monitoring.*", cut=True))
    with pytest.raises(exceptions.ServiceUnavailable):
        libraries.monitoring.list_time_series(name="projects/evenkeel-lab", filter="x", retry=None, timeout=SECONDS)


def test_a_call_hangs_as_long_as_the_client_waits(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.add(Fault(method="*.get", hang_seconds=600))
    google_cloud.admin.add(Fault(method="sql.instances.restart", hang_seconds=600, takes_effect=True))
    with pytest.raises(requests.exceptions.ReadTimeout):
        get(libraries, timeout=0.3)
    with pytest.raises(requests.exceptions.ReadTimeout):
        libraries.session.post("https://sqladmin.googleapis.com/v1/projects/evenkeel-lab/instances/orders/restart", timeout=0.3)
    assert google_cloud.admin.mutations()[0].outcome == "began"


def test_an_answer_is_an_error_although_the_request_took_effect(google_cloud: GoogleProject, libraries: Libraries) -> None:
    google_cloud.admin.add(Fault(method="sql.instances.restart", status=503, takes_effect=True))
    with pytest.raises(HttpError, match="503"):
        libraries.sql.instances().restart(project=google_cloud.id, instance="orders").execute()
    (operation,) = libraries.sql.operations().list(project=google_cloud.id, instance="orders").execute()["items"]
    assert operation["operationType"] == "RESTART"


def test_operations_fail_or_never_end(google_cloud: GoogleProject, libraries: Libraries) -> None:
    fault = Fault(operation="error", operation_code="RESOURCE_EXHAUSTED", operation_message="No capacity.", operation_status=0)
    number = google_cloud.admin.add(fault)
    operation = libraries.instances.stop_unary(project=google_cloud.id, zone=HERE, instance="web-1")
    ended = libraries.operations.wait(project=google_cloud.id, zone=HERE, operation=operation.name)
    assert ([one.code for one in ended.error.errors], ended.http_error_status_code) == (["RESOURCE_EXHAUSTED"], 0)
    assert get(libraries).status == "RUNNING"
    failing = libraries.redis.failover_instance(name=PAGES)
    with pytest.raises(exceptions.GoogleAPICallError, match="No capacity"):
        result(failing)
    assert libraries.redis.get_instance(name=PAGES).state == 2

    google_cloud.admin.remove(number)
    google_cloud.admin.add(Fault(operation="stuck"))
    restarting = libraries.sql.instances().restart(project=google_cloud.id, instance="orders").execute()
    time.sleep(0.3)
    again = libraries.sql.operations().get(project=google_cloud.id, operation=restarting["name"]).execute()
    assert again["status"] == "RUNNING"
    google_cloud.admin.reset()
    assert "items" not in libraries.sql.operations().list(project=google_cloud.id, instance="orders").execute()
