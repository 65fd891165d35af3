"""Small inventories and observations for tests of pure decisions."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from blocks.schema import Inventory, Kind, Resource
from tasks.core.models import Finding, Health, Incident, Observation, Reading

START = datetime(2026, 1, 1, tzinfo=UTC)
Observe = Callable[..., Observation]


@pytest.fixture
def inventory() -> Inventory:
    return Inventory(
        name="unit",
        resources=(
            Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1"),
            Resource(name="app", kind=Kind.HTTP, address="http://127.0.0.1:2/", depends_on=("cache",)),
            Resource(name="web", kind=Kind.NGINX, address="http://127.0.0.1:3/", depends_on=("app",)),
        ),
    )


@pytest.fixture
def observe(inventory: Inventory) -> Observe:
    def make(name: str, health: Health, at_seconds: float = 0) -> Observation:
        findings = (Finding(symptom="memory_high", health=health, summary=f"{name} is unwell"),) if health.is_breach else ()
        return Observation(
            resource=name,
            kind=inventory.resource(name).kind,
            health=health,
            findings=findings,
            reading=Reading(values={"memory_percent": 97.0}),
            summary="; ".join(finding.summary for finding in findings),
            taken_at=START + timedelta(seconds=at_seconds),
        )

    return make


@pytest.fixture
def incident(observe: Observe) -> Incident:
    observation = observe("cache", Health.DEGRADED)
    return Incident(
        id="cache-1",
        inventory="unit",
        resource="cache",
        kind=Kind.REDIS,
        health=Health.DEGRADED,
        symptoms=("memory_high",),
        summary="memory at 97 %",
        opened_at=START,
        observation=observation,
    )
