"""The judgement of Redis' readings, a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.schema import Kind, Resource, Thresholds
from tasks.core.models import Health, Reading
from tasks.core.redis_judgement import judge


def resource(**thresholds: float) -> Resource:
    return Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:6379", thresholds=Thresholds(**thresholds))


def symptoms(values: dict[str, Any], **thresholds: float) -> dict[str, Health]:
    return {finding.symptom: finding.health for finding in judge(Reading(values=values), resource(**thresholds))}


ODD = st.sampled_from([None, True, False, 0, 1, -1, 99.9, 10**30, "", "ok", "timeout", [1], {"ok": 1}]) | st.floats() | st.text(max_size=5)
NAMES = (
    "answers",
    "memory_percent",
    "write_ok",
    "write_error",
    "clients_percent",
    "clients_full",
    "blocked_by_script",
    "rdb_last_bgsave_status",
    "aof_last_write_status",
    "latency_seconds",
)


@given(st.dictionaries(st.sampled_from(NAMES), ODD))
def test_judging_never_raises_whatever_is_missing_or_odd(values: dict[str, Any]) -> None:
    assert all(finding.summary and finding.health.is_breach for finding in judge(Reading(values=values), resource()))


@given(st.floats(0, 200), st.floats(0, 200), st.floats(1, 100))
def test_more_memory_is_never_healthier(one: float, other: float, threshold: float) -> None:
    less, more = sorted((one, other))

    def found(share: float) -> dict[str, Health]:
        return symptoms({"answers": "yes", "memory_percent": share}, memory_percent=threshold)

    assert found(less).keys() <= found(more).keys()
    assert ("memory_high" in found(more)) == (more >= threshold)


@given(st.sampled_from([("clients_percent", "clients_high", 90), ("latency_seconds", "slow", 2)]), st.floats(0, 200))
def test_the_other_thresholds_hold_in_the_same_way(rule: tuple[str, str, float], value: float) -> None:
    name, symptom, threshold = rule
    is_full = symptom == "clients_high" and value >= 100

    found = symptoms({"answers": "yes", name: value})

    assert set(found) == ({"clients_exhausted"} if is_full else {symptom} if value >= threshold else set())


@pytest.mark.parametrize(
    ("values", "primary", "found"),
    [
        ({"role": "replica", "write_ok": False, "write_error": "READONLY You can't"}, True, {"unexpected_replica"}),
        ({"role": "replica", "write_ok": False, "write_error": "READONLY You can't"}, False, {"write_refused"}),
        ({"role": "replica", "write_ok": False, "write_error": "OOM command"}, True, {"unexpected_replica", "write_refused"}),
        ({"role": "master"}, True, set()),
        ({"application_login": "rejected", "application_user": "shop"}, False, {"auth_refused"}),
        ({"application_login": "ok"}, False, set()),
        ({"application_login": None}, False, set()),
        ({"answers": "refused", "broken_aof": "a.aof"}, False, {"aof_broken"}),
        ({"answers": "refused", "broken_aof": None}, False, {"down"}),
        ({"blocked_by_script": True, "memory_percent": 99}, False, {"script_blocking"}),
        ({"clients_full": True}, False, {"clients_exhausted"}),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], primary: bool, found: set[str]) -> None:
    declared = resource().model_copy(update={"primary": primary})

    assert {one.symptom for one in judge(Reading(values={"answers": "yes", **values}), declared)} == found


def test_the_summary_tells_the_figures() -> None:
    values = {"answers": "yes", "memory_percent": 96.5, "used_memory_mib": 61.76, "maxmemory_mib": 64.0}

    (finding,) = judge(Reading(values=values), resource())

    assert finding.summary == "memory at 96.5 % of maxmemory (61.76 of 64.0 MiB, threshold 95 %)"
