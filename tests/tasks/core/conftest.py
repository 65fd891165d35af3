"""Small inventories and observations for tests of pure decisions."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from blocks.schema import Inventory, Kind, Resource
from tasks.core.models import Health, Incident, Observation
from tests.tasks.unwell import START, incident_of, observation_of

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
        symptoms = ("memory_high",) if health.is_breach else ()
        taken_at = START + timedelta(seconds=at_seconds)
        return observation_of(inventory.resource(name), *symptoms, health=health, summary=f"{name} is unwell", taken_at=taken_at)

    return make


@pytest.fixture
def incident(observe: Observe) -> Incident:
    return incident_of(observe("cache", Health.DEGRADED))
