"""Each rule of the policy by itself, and which of them speaks first."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import JsonValue

from blocks.schema import Autonomy, Kind, Limits, Maintenance, Resource, Risk, Role, Rules
from tasks.catalog import load_catalog
from tasks.core.models import Step
from tasks.core.policy import Action, Ruling, Standing, authorise
from tests.incidents import NOW, context_of
from tests.tasks.unwell import incident_of, observation_of

TOOLS = load_catalog().tools
CACHE = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1", role=Role.CACHE, limits=Limits(memory_mib=128))
STORE = CACHE.model_copy(update={"role": Role.STORE})
LATER = Maintenance(until=NOW + timedelta(hours=1), reason="moving")
SET, EVICT, FLUSH, PURGE = "redis_set_maxmemory", "redis_evict_to", "redis_flush", "redis_memory_purge"
MILDER_TRIED: dict[str, Any] = {"tried": {SET, EVICT}}


def limited(memory_mib: int | None) -> Resource:
    """The cache with that limit."""
    return CACHE.model_copy(update={"limits": Limits(memory_mib=memory_mib)})


def ruled(
    tool: str,
    *symptoms: str,
    resource: Resource = CACHE,
    rules: Rules = Rules(),  # noqa: B008 - immutable
    mebibytes: float = 96,
    approved: bool = False,
    values: dict[str, Any] | None = None,
    target: str = "cache",
    **standing: Any,
) -> Ruling:
    measured = {"maxmemory_mib": 64.0, "memory_percent": 96.88} if values is None else values
    observation = observation_of(CACHE, *(symptoms or ("memory_high",)), values=measured)
    return authorise(
        Step(tool=tool, target=target, args={"mebibytes": mebibytes} if tool == SET else {}, why="test"),
        TOOLS[tool],
        tools=TOOLS,
        incident=incident_of(observation),
        resource=resource,
        observation=observation,
        rules=rules,
        standing=Standing(now=NOW, **standing),
        approved=approved,
    )


@pytest.mark.parametrize(
    ("said", "action", "reason"),
    [
        ({"tool": SET}, Action.ALLOW, "reversible, and memory_high is measured"),
        (
            {"tool": "redis_info", "stopped": "a release", "resource": CACHE.model_copy(update={"maintenance": LATER})},
            Action.ALLOW,
            "reads only",
        ),
        ({"tool": SET, "target": "web"}, Action.DENY, "the target 'web' is not the incident's resource 'cache'"),
        ({"tool": "http_restart"}, Action.DENY, "is a tool for http, the resource is a redis"),
        ({"tool": SET, "stopped": "a release"}, Action.DENY, "the kill switch is on: a release"),
        (
            {"tool": SET, "resource": CACHE.model_copy(update={"maintenance": LATER})},
            Action.DENY,
            "under maintenance until 2026-01-01T01:00",
        ),
        ({"tool": "redis_restart"}, Action.DENY, "measured is memory_high; redis_restart needs down or unresponsive"),
        ({"tool": SET, "mebibytes": 64}, Action.DENY, "mebibytes 64 is not above maxmemory_mib, which is 64"),
        ({"tool": SET, "mebibytes": 129}, Action.DENY, "mebibytes 129 is above limits.memory_mib, which is 128"),
        ({"tool": SET, "values": {}}, Action.DENY, "maxmemory_mib is measured as None"),
        ({"tool": SET, "rules": Rules(autonomy=Autonomy.OBSERVE)}, Action.DENY, "autonomy is observe (rules.autonomy)"),
        ({"tool": FLUSH, **MILDER_TRIED}, Action.ALLOW, "destructive on a cache, whose data may be dropped, and memory_high is measured"),
        ({"tool": FLUSH, "tried": {SET}}, Action.ASK, "redis_evict_to is milder, fits what is measured, and was not tried"),
        ({"tool": EVICT}, Action.ASK, "redis_set_maxmemory is milder, fits what is measured, and was not tried"),
        ({"tool": EVICT, "tried": {SET}}, Action.ALLOW, ""),
        # There is no room: the limit is reached, would not suffice, is for a person to say, or what is measured does not tell.
        ({"tool": EVICT, "resource": limited(64)}, Action.ALLOW, ""),
        ({"tool": EVICT, "resource": limited(65)}, Action.ALLOW, ""),
        ({"tool": EVICT, "resource": limited(None)}, Action.ALLOW, ""),
        ({"tool": EVICT, "values": {"maxmemory_mib": 64.0}}, Action.ALLOW, ""),
        ({"tool": FLUSH, "resource": STORE}, Action.ASK, "destructive on a store"),
        ({"tool": SET, "resource": CACHE.model_copy(update={"limits": Limits()})}, Action.ASK, "sets no limits.memory_mib"),
        ({"tool": SET, "fixes_last_hour": 20}, Action.ASK, "reach max_fixes_per_hour, 20"),
        ({"tool": SET, "fixes_last_hour": 19, "fixes_last_hour_overall": 99}, Action.ALLOW, ""),
        ({"tool": SET, "fixes_last_hour_overall": 100}, Action.ASK, "reach max_fixes_per_hour_overall, 100"),
        ({"tool": PURGE, "seconds_since_last_use": {PURGE: 299}}, Action.ASK, "was used 299 s ago, within the cool-down of 300 s"),
        ({"tool": PURGE, "seconds_since_last_use": {PURGE: 300, FLUSH: 1}}, Action.ALLOW, ""),
        ({"tool": SET, "seconds_since_last_use": {SET: 1}}, Action.ALLOW, ""),
        ({"tool": SET, "rules": Rules(autonomy=Autonomy.APPROVE)}, Action.ASK, "autonomy is approve (rules.autonomy)"),
        (
            {"tool": FLUSH, **MILDER_TRIED, "rules": Rules(autonomy_of_risk={Risk.DESTRUCTIVE: Autonomy.APPROVE})},
            Action.ASK,
            "autonomy is approve (rules.autonomy_of_risk.destructive)",
        ),
        ({"tool": SET, "rules": Rules(autonomy_of_risk={Risk.DESTRUCTIVE: Autonomy.OBSERVE})}, Action.ALLOW, ""),
        (
            {"tool": SET, "rules": Rules(autonomy=Autonomy.OBSERVE), "resource": CACHE.model_copy(update={"autonomy": Autonomy.AUTO})},
            Action.ALLOW,
            "",
        ),
        (
            {"tool": SET, "resource": CACHE.model_copy(update={"autonomy": Autonomy.APPROVE})},
            Action.ASK,
            "autonomy is approve (of the resource)",
        ),
        ({"tool": SET, "autonomy": Autonomy.OBSERVE}, Action.DENY, "autonomy is observe (of this run)"),
        ({"tool": SET, "autonomy": Autonomy.AUTO, "rules": Rules(autonomy=Autonomy.APPROVE)}, Action.ASK, "autonomy is approve"),
    ],
)
def test_a_rule_speaks_with_its_reason(said: dict[str, Any], action: Action, reason: str) -> None:
    ruling = ruled(said.pop("tool"), **said)
    assert (ruling.action, reason in ruling.reason) == (action, True), ruling.reason


def test_propose_shows_what_would_have_been_decided() -> None:
    run: dict[str, Any] = {"autonomy": Autonomy.PROPOSE}
    told = "autonomy is propose (of this run): shown, not executed; otherwise: "
    assert ruled(SET, **run).reason == f"{told}allow, reversible, and memory_high is measured"
    assert ruled(FLUSH, resource=STORE, **run).reason == f"{told}ask, destructive on a store: only a person may decide"
    asked = ruled(SET, rules=Rules(autonomy=Autonomy.APPROVE), approved=True, **run)
    assert asked.action is Action.DENY
    assert asked.reason == f"{told}ask, autonomy is approve (rules.autonomy): every change asks a person"
    assert ruled("redis_restart", **run).reason.startswith("measured is memory_high")
    assert ruled(SET, rules=Rules(autonomy=Autonomy.OBSERVE), **run).reason.startswith("autonomy is observe")


def test_an_approved_question_keeps_what_was_asked() -> None:
    ruling = ruled(FLUSH, resource=STORE, approved=True)
    assert (ruling.action, ruling.reason) == (
        Action.ALLOW,
        "approved by a person; asked because destructive on a store: only a person may decide",
    )


def test_a_person_is_told_what_could_be_lost_and_how_it_is_undone() -> None:
    assert (ruled(SET).loss, ruled(SET).undo) == ("nothing: the value before is kept", "taken back by redis_set_maxmemory")
    assert (ruled(FLUSH).loss, ruled(FLUSH).undo) == ("data of the resource", "can't be taken back")
    assert ruled("redis_info").undo == ""
    assert ruled(PURGE).risk is Risk.DISRUPTIVE


def test_a_measurement_of_another_resource_is_no_precondition() -> None:
    other = STORE.model_copy(update={"name": "other"})
    assert "is not the incident's resource" in ruled(SET, resource=other).reason


@pytest.mark.parametrize(
    ("incident", "tool", "args", "action"),
    [
        ("db: connections_high", "postgres_kill_long_queries", {"application_name": "reports", "user": "shop"}, Action.ALLOW),
        ("db: connections_high", "postgres_kill_long_queries", {"application_name": "shop", "user": "shop"}, Action.ASK),
        ("db: connections_high", "postgres_kill_long_queries", {"application_name": "reports", "user": "postgres"}, Action.ASK),
        ("db: connections_high", "postgres_kill_long_queries", {"application_name": "reports"}, Action.ASK),
        ("db: connections_high", "postgres_terminate_idle", {}, Action.ASK),
        ("db: connections_high by many", "postgres_terminate_idle", {"application_name": "reports", "user": "shop"}, Action.ASK),
        ("db: lock_wait", "postgres_terminate_idle", {"application_name": "reports", "user": "shop"}, Action.ALLOW),
        ("db: idle_in_transaction", "postgres_terminate_idle", {"application_name": "reports", "user": "shop"}, Action.ALLOW),
        ("db: idle_in_transaction", "postgres_terminate_idle", {"application_name": "shop", "user": "shop"}, Action.ASK),
    ],
)
def test_only_sessions_that_were_measured_to_be_the_trouble_end_without_a_person(
    incident: str, tool: str, args: dict[str, JsonValue], action: Action
) -> None:
    context = context_of(incident)
    ruling = authorise(
        Step(tool=tool, target="shop-db", args=args, why="test"),
        TOOLS[tool],
        tools=TOOLS,
        incident=context.incident,
        resource=context.resource,
        observation=context.observation,
        rules=Rules(),
        standing=Standing(now=NOW),
    )
    assert ruling.action is action, ruling.reason
