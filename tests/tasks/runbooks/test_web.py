"""The HTTP runbook: a service that is down is started, and nothing is guessed."""

from datetime import UTC, datetime
from typing import Any

import pytest

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Resource
from tasks.catalog import load_catalog
from tasks.core.models import Context, Health, Incident, Reading
from tasks.core.verdicts import observe
from tasks.probes.web import judge
from tasks.runbooks.web import http_down

NOW = datetime(2026, 1, 31, tzinfo=UTC)
RUNTIME = ProcessRuntime(control="/run/lab/control.sock", service="app")


def context_of(values: dict[str, Any], runtime: ProcessRuntime | None) -> Context:
    resource = Resource(name="shop", kind=Kind.HTTP, address="http://127.0.0.1:80/healthz", runtime=runtime)
    reading = Reading(values=values)
    observation = observe(resource, reading, judge(reading, resource), taken_at=NOW, seconds=0)
    incident = Incident(
        id="shop-1",
        inventory="lab",
        resource="shop",
        kind=Kind.HTTP,
        health=Health.FAILED,
        symptoms=tuple(finding.symptom for finding in observation.findings),
        summary=observation.summary,
        opened_at=NOW,
        observation=observation,
    )
    return Context(incident=incident, resource=resource, observation=observation)


def test_a_service_that_is_down_is_started() -> None:
    (remedy,) = http_down(context_of({"answers": "refused", "error": "connection refused"}, RUNTIME))

    assert [(step.tool, step.target, step.args) for step in remedy.steps] == [("http_restart", "shop", {})]
    assert "connection refused" in remedy.steps[0].why


def test_without_a_runtime_nothing_is_advised() -> None:
    assert list(http_down(context_of({"answers": "refused"}, None))) == []


@pytest.mark.parametrize(
    "values",
    [
        {"answers": "yes", "status_code": 503, "dependencies": {"cache": "refused"}, "failing_dependencies": ["cache"]},
        {"answers": "yes", "status_code": 500},
        {"answers": "timeout"},
    ],
)
def test_no_runbook_speaks_where_the_cause_is_elsewhere_or_unknown(values: dict[str, Any]) -> None:
    symptoms = context_of(values, RUNTIME).incident.symptoms

    assert symptoms
    assert load_catalog().runbooks_for(Kind.HTTP, symptoms) == []
