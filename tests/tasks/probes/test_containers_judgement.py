"""What a container's values are judged to be. Nothing is running for it."""

from typing import Any

import pytest

from blocks.schema import Kind, Resource, Thresholds
from tasks.core.models import Health, Reading
from tasks.probes.containers import judge
from tests.container_incidents import BOX

RESOURCE = Resource(name="shop-box", kind=Kind.CONTAINER, address="shop-app-1")
DOWN = BOX | {"state": "exited", "exit_code": 1, "uptime_seconds": None, "memory_mib": None, "memory_percent": None}
TAKEN = "Bind for 127.0.0.1:8080 failed: port is already allocated"


@pytest.mark.parametrize(
    ("values", "symptoms", "health"),
    [
        (BOX, [], None),
        ({"state": "missing"}, ["missing"], Health.FAILED),
        (DOWN, ["container_down"], Health.FAILED),
        (DOWN | {"state": "created", "error": TAKEN}, ["port_conflict"], Health.FAILED),
        (DOWN | {"error": "listen tcp4 127.0.0.1:8080: bind: address already in use"}, ["port_conflict"], Health.FAILED),
        (DOWN | {"oom_kills": 1, "exit_code": 137}, ["oom_killed"], Health.FAILED),
        (DOWN | {"maintenance": "new disk"}, [], None),
        (BOX | {"state": "paused", "health": "unhealthy", "memory_percent": 99.0}, ["paused"], Health.FAILED),
        (BOX | {"health": "unhealthy", "ports_answering": "1 of 1"}, ["unhealthy"], Health.DEGRADED),
        (BOX | {"health": "starting"}, [], None),
        (BOX | {"networks_missing": ["shop_default"]}, ["network_detached"], Health.DEGRADED),
        (BOX | {"oom_kills": 2}, ["oom_killed"], Health.DEGRADED),
        (BOX | {"memory_percent": 95.0}, ["memory_high"], Health.DEGRADED),
        (BOX | {"memory_percent": 94.9, "cpu_percent": 94.9, "throttled_percent": 49.9}, [], None),
        (BOX | {"cpu_percent": 100.2, "throttled_percent": 98.0}, ["cpu_throttled", "cpu_high"], Health.DEGRADED),
        (BOX | {"restarts_last_hour": 3, "uptime_seconds": 0.4}, ["crash_looping"], Health.FAILED),
        (BOX | {"state": "restarting", "restart_count": 7, "uptime_seconds": None}, ["crash_looping"], Health.FAILED),
        (DOWN | {"restarts_last_hour": 3}, ["crash_looping"], Health.FAILED),
        (BOX | {"restarts_last_hour": 3, "uptime_seconds": 6.0}, [], None),
        (BOX | {"restarts_last_hour": 2, "uptime_seconds": 0.4}, [], None),
        ({"state": "running"}, [], None),
    ],
)
def test_judgement(values: dict[str, Any], symptoms: list[str], health: Health | None) -> None:
    found = judge(Reading(values=values), RESOURCE)
    assert [finding.symptom for finding in found] == symptoms
    assert {finding.health for finding in found} == ({health} if health else set())


def test_thresholds_are_the_resources_own() -> None:
    strict = RESOURCE.model_copy(update={"thresholds": Thresholds(memory_percent=10, restarts_per_hour=1)})
    values = BOX | {"restarts_last_hour": 1, "uptime_seconds": 1.0}
    assert [finding.symptom for finding in judge(Reading(values=values), strict)] == ["crash_looping", "memory_high"]
