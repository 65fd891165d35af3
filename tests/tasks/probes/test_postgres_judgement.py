"""The judgement of PostgreSQL's readings, a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.schema import Kind, Resource, Thresholds
from tasks.core.models import Finding, Health, Reading
from tasks.probes.postgres_judgement import judge

NAMES = (
    "answers", "answers_error", "monitor_refused", "connections_used", "connections_max", "connections_reserved", "connections_percent",
    "select_ok", "select_seconds", "select_reason", "select_error", "oldest_idle_in_transaction_seconds", "longest_blocked_seconds",
    "oldest_idle_in_transaction_application", "blocked_count", "read_only", "in_recovery", "privileges_missing", "damaged_pages",
    "longest_query", "scanned_table", "bloated_table", "idle_slot",
)  # fmt: skip
WORDS = st.sampled_from(["yes", "refused", "timeout", "starting", "full", "login", "failed", ""])
NUMBERS = st.floats(min_value=0, max_value=1e6)
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.lists(st.integers(), max_size=2), st.dictionaries(WORDS, st.integers())
)
HEALTHY = {"answers": "yes", "select_ok": True, "select_seconds": 0.01, "connections_used": 3, "connections_max": 100}


def resource(**thresholds: float) -> Resource:
    return Resource(
        name="db",
        kind=Kind.POSTGRES,
        address="127.0.0.1:5432/shop",
        logins={"monitor": "evenkeel"},
        thresholds=Thresholds.model_validate(thresholds),
    )


def found(values: dict[str, Any], **thresholds: float) -> dict[str, Finding]:
    return {finding.symptom: finding for finding in judge(Reading(values=values), resource(**thresholds))}


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING))
def test_judging_never_raises_whatever_is_missing_or_odd(values: dict[str, Any]) -> None:
    findings = judge(Reading(values=values), resource())
    assert all(finding.summary and finding.health.is_breach for finding in findings)
    assert len({finding.symptom for finding in findings}) == len(findings)


@given(percent=st.floats(0, 100), threshold=st.floats(1, 100))
def test_connections_are_high_exactly_from_the_threshold_on(percent: float, threshold: float) -> None:
    findings = found({**HEALTHY, "connections_percent": percent}, connections_percent=threshold)
    assert ("connections_high" in findings) == (percent >= threshold)
    assert all(finding.health is Health.DEGRADED for finding in findings.values())


@given(waited=st.one_of(st.none(), NUMBERS), idle=st.one_of(st.none(), NUMBERS), seconds=NUMBERS, blocked_seconds=st.floats(0.1, 100))
def test_each_time_is_held_against_its_own_threshold(
    waited: float | None, idle: float | None, seconds: float, blocked_seconds: float
) -> None:
    values = {**HEALTHY, "longest_blocked_seconds": waited, "oldest_idle_in_transaction_seconds": idle, "select_seconds": seconds}
    findings = found(values, blocked_seconds=blocked_seconds, idle_in_transaction_seconds=60, latency_seconds=2)
    assert ("lock_wait" in findings) == (waited is not None and waited >= blocked_seconds)
    assert ("idle_in_transaction" in findings) == (idle is not None and idle >= 60)
    assert ("slow" in findings) == (seconds >= 2)


@given(st.dictionaries(st.sampled_from(NAMES[2:]), ANYTHING), st.sampled_from(["refused", "timeout", "starting"]))
def test_a_silent_server_is_one_failure_whatever_else_was_read(values: dict[str, Any], answers: str) -> None:
    findings = found({**values, "answers": answers})
    assert [finding.health for finding in findings.values()] == [Health.FAILED]


@pytest.mark.parametrize(
    ("values", "symptom"),
    [
        ({"select_ok": False, "select_reason": "full", "select_error": "too many clients"}, "connections_exhausted"),
        # A server whose messages are not English.
        ({"select_ok": False, "select_reason": "login", "connections_used": 95, "connections_reserved": 6}, "connections_exhausted"),
        ({"select_ok": None, "monitor_refused": True}, "connections_exhausted"),
        ({"select_ok": False, "select_reason": "login", "connections_used": 3, "connections_reserved": 6}, "application_refused"),
        ({"select_ok": False, "select_reason": "failed"}, "application_refused"),
        ({"select_ok": False, "select_reason": "timeout"}, "unresponsive"),
        ({"select_ok": False, "select_reason": "refused"}, "unresponsive"),
        ({"select_ok": False, "select_reason": "starting"}, "starting"),
    ],
)
def test_what_the_application_meets(values: dict[str, Any], symptom: str) -> None:
    findings = found({**HEALTHY, "select_seconds": None, **values})
    assert {name: finding.health for name, finding in findings.items()} == {symptom: Health.FAILED}


def test_the_cause_stands_before_what_follows_from_it() -> None:
    values = {**HEALTHY, "connections_percent": 90, "longest_blocked_seconds": 20, "oldest_idle_in_transaction_seconds": 90}
    assert list(found(values)) == ["lock_wait", "idle_in_transaction", "connections_high"]


@pytest.mark.parametrize(
    ("values", "symptoms"),
    [
        ({"read_only": True, "in_recovery": False}, ["read_only"]),
        ({"read_only": True, "in_recovery": True}, []),  # a standby
        ({"privileges_missing": [{"privilege": "USAGE", "kind": "schema", "schema": "public", "name": None}]}, ["privilege_missing"]),
        ({"privileges_missing": []}, []),
        ({"damaged_pages": 1}, ["pages_damaged"]),
        ({"damaged_pages": None}, []),
        ({"longest_query": {"seconds": 3600.0}}, ["long_query"]),
        ({"longest_query": {"seconds": 3599.0}}, []),
        ({"scanned_table": {"scans_per_second": 10.0}}, ["table_scans"]),
        ({"bloated_table": {"dead_percent": 50.0}}, ["dead_rows"]),
        ({"idle_slot": {"retained_mib": 5119}}, []),
        ({"idle_slot": {"retained_mib": 5120}}, ["wal_retained"]),
    ],
)
def test_what_else_is_wrong(values: dict[str, Any], symptoms: list[str]) -> None:
    assert list(found({**HEALTHY, **values})) == symptoms
