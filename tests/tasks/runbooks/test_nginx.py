"""What the runbooks propose for Nginx, and where they keep silent."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Limits, Resource
from tasks.catalog import load_catalog
from tasks.core.declare import Remedy
from tasks.core.models import Attempt, Context, Decision, Incident, Plan, Reading
from tasks.core.nginx_judgement import judge
from tasks.core.plans import parse_args
from tasks.core.verdicts import observe
from tasks.runbooks.nginx import UNDECLARED_LIMIT, nginx_connections, nginx_down, nginx_unresponsive

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNTIME = ProcessRuntime(control="/run/lab.sock", service="web")
FULL: dict[str, Any] = {
    "answers": "yes",
    "page_ok": False,
    "page_status": 500,
    "page_from": "nginx",
    "page_seconds": 0.01,
    "connections_used": 240,
    "connections_max": 256,
    "connections_percent": 93.8,
    "busiest_worker_percent": 93.8,
    "worker_connections": 256,
    "worker_processes": 1,
    "draining_workers": 0,
    "stopped_workers": 0,
}
Book = Any


def context(values: dict[str, Any], *tried: Remedy, **fields: Any) -> Context:
    given_fields = {"runtime": RUNTIME, "limits": Limits(connections=4096), **fields}
    resource = Resource(name="web", kind=Kind.NGINX, address="http://127.0.0.1:80/", **given_fields)
    reading = Reading(values=values)
    seen = observe(resource, reading, judge(reading, resource), taken_at=NOW, seconds=0)
    incident = Incident(
        id="web-1",
        inventory="lab",
        resource="web",
        kind=Kind.NGINX,
        health=seen.health,
        symptoms=tuple(finding.symptom for finding in seen.findings),
        summary=seen.summary,
        opened_at=NOW,
        observation=seen,
    )
    attempts = tuple(
        Attempt(plan=Plan(planner="runbook", decision=Decision.ACT, diagnosis=remedy.diagnosis, steps=remedy.steps)) for remedy in tried
    )
    return Context(incident=incident, resource=resource, observation=seen, attempts=attempts)


def steps(remedies: Iterator[Remedy]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for remedy in remedies:
        [step] = remedy.steps
        assert step.target == "web"
        parse_args(load_catalog().tools[step.tool], step)
        assert remedy.expected
        assert remedy.evidence
        found.append((step.tool, dict(step.args)))
    return found


def test_a_full_server_is_given_more_before_anything_is_cut() -> None:
    assert steps(nginx_connections(context(FULL))) == [
        ("nginx_scale_connections", {"worker_connections": 601}),
        ("nginx_clear_connections", {"drain_seconds": 1}),
    ]


def test_the_reasons_give_the_figures() -> None:
    scale, clear = nginx_connections(context(FULL))
    assert "240 of 256 connections are in use (93.8 %)" in scale.steps[0].why
    assert "601 for each worker is within limits.connections of 4096" in scale.steps[0].why
    assert "connections_percent is 93.8" in scale.evidence
    assert "240 of 256" in clear.steps[0].why


def test_the_limit_is_raised_once_an_incident() -> None:
    first, _ = nginx_connections(context(FULL))
    assert steps(nginx_connections(context(FULL, first))) == [("nginx_clear_connections", {"drain_seconds": 1})]


@pytest.mark.parametrize(("most", "expected"), [(512, 512), (256, None), (257, None), (None, 601)])
def test_the_limit_stays_within_the_inventorys_and_must_help(most: int | None, expected: int | None) -> None:
    [(tool, args), *_] = steps(nginx_connections(context(FULL, limits=Limits(connections=most))))
    assert args.get("worker_connections") == expected
    assert (tool == "nginx_scale_connections") == (expected is not None)


@given(
    used=st.integers(1, 20_000),
    workers=st.integers(1, 16),
    limit=st.integers(1, 20_000),
    most=st.integers(10, 100_000) | st.none(),
)
def test_a_raise_is_never_beyond_the_bound_and_always_relieves(used: int, workers: int, limit: int, most: int | None) -> None:
    values = {**FULL, "connections_used": used, "worker_processes": workers, "worker_connections": limit}
    for tool, args in steps(nginx_connections(context(values, limits=Limits(connections=most)))):
        if tool == "nginx_scale_connections":
            raised = args["worker_connections"]
            assert limit < raised <= (most or UNDECLARED_LIMIT)
            assert 100 * used / workers / raised < 80
            if raised < (most or UNDECLARED_LIMIT):
                assert raised >= 2 * limit
                assert 100 * used / workers / raised < 40


@pytest.mark.parametrize(
    "values",
    [
        {**FULL, "connections_percent": 12.0, "busiest_worker_percent": 12.0},  # the page fails for another reason
        {**FULL, "page_status": 502},  # what is behind is the root
        {**FULL, "page_status": 504, "page_from": "nginx"},
        {**FULL, "page_status": None, "page_error": "timeout", "error": "no page within 2.5 s"},
        {**FULL, "connections_percent": None, "busiest_worker_percent": None, "connections_used": None},
    ],
)
def test_where_the_connections_are_not_the_reason_nothing_is_proposed(values: dict[str, Any]) -> None:
    assert steps(nginx_connections(context(values))) == []


def test_an_unknown_limit_is_not_raised() -> None:
    values = {**FULL, "worker_connections": None}
    assert [tool for tool, _ in steps(nginx_connections(context(values)))] == ["nginx_clear_connections"]


def test_a_server_that_is_down_is_started() -> None:
    down = {"answers": "refused", "error": "connection refused", "worker_processes": None}
    assert steps(nginx_down(context(down))) == [("nginx_restart", {})]
    assert steps(nginx_down(context(down, runtime=None))) == []
    assert steps(nginx_down(context({**down, "worker_processes": 2}))) == [], "it listens elsewhere"


def test_a_hanging_server_gets_new_workers_before_a_restart() -> None:
    hanging = {"answers": "timeout", "worker_processes": 0, "stopped_workers": 2}
    assert steps(nginx_unresponsive(context(hanging))) == [("nginx_reload", {}), ("nginx_restart", {})]
    assert steps(nginx_unresponsive(context(hanging, runtime=None))) == [("nginx_reload", {})]
    unseen = {"answers": "timeout", "worker_processes": None}
    assert steps(nginx_unresponsive(context(unseen))) == [("nginx_restart", {})]


def test_what_is_behind_nginx_has_no_runbook_here() -> None:
    assert load_catalog().runbooks_for(Kind.NGINX, ("upstream_failing", "slow")) == []
    assert [found.name for found in load_catalog().runbooks_for(Kind.NGINX, ("upstream_unreachable",))] == ["nginx_upstream_unreachable"]
    for symptom, book in (("connections_high", nginx_connections), ("down", nginx_down), ("unresponsive", nginx_unresponsive)):
        assert [found.name for found in load_catalog().runbooks_for(Kind.NGINX, (symptom,))] == [book.__name__]
