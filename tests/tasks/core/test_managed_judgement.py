"""What Cloud SQL's and Memorystore's readings say is wrong, and what a tier means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import cloud_sql_judgement, memorystore_judgement
from tasks.core.cloud_sql_sizes import default_connections
from tasks.core.models import Health, Reading
from tests.incidents import READINGS
from tests.managed_incidents import CACHE_RESOURCE, FULL_REDIS, FULL_SQL, MANAGED_READINGS, REDIS, SQL, SQL_RESOURCE

ANYTHING: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5) | st.just({}) | st.just([])
)


@given(
    base=st.sampled_from([SQL, *(values for name, (_, values) in MANAGED_READINGS.items() if name.startswith("sql"))]),
    name=st.sampled_from(sorted({*SQL, "longest_query", "operation"})),
    value=ANYTHING,
)
def test_whatever_cloud_sqls_probe_reads_is_judged(base: dict[str, object], name: str, value: object) -> None:
    for values in (base | {name: value}, {key: kept for key, kept in base.items() if key != name}):
        cloud_sql_judgement.judge(Reading.model_construct(values=values), SQL_RESOURCE)  # type: ignore[arg-type]


@given(base=st.sampled_from([REDIS, FULL_REDIS]), name=st.sampled_from(sorted(REDIS)), value=ANYTHING)
def test_whatever_memorystores_probe_reads_is_judged(base: dict[str, object], name: str, value: object) -> None:
    for values in (base | {name: value}, {key: kept for key, kept in base.items() if key != name}):
        memorystore_judgement.judge(Reading.model_construct(values=values), CACHE_RESOURCE)  # type: ignore[arg-type]


def test_what_is_well_has_no_finding_and_what_is_seen_from_afar_says_how_old_it_is() -> None:
    assert cloud_sql_judgement.judge(Reading(values=SQL), SQL_RESOURCE) == ()
    assert memorystore_judgement.judge(Reading(values=REDIS), CACHE_RESOURCE) == ()
    _, values = READINGS["sql: connections_high seen from outside"]
    (finding,) = cloud_sql_judgement.judge(Reading(values=values), SQL_RESOURCE)
    assert finding.summary == "45 of 50 connections in use (90 %, threshold 80 %), Cloud Monitoring, 200 s old"
    (finding,) = cloud_sql_judgement.judge(Reading(values=FULL_SQL), SQL_RESOURCE)
    assert finding.summary == "45 of 50 connections in use (90 %, threshold 80 %)"
    aged = {"memory_percent": 96.0, "memory_gib": 2, "state": "READY", "sources": {"memory_percent": "Cloud Monitoring, 170 s old"}}
    (finding,) = memorystore_judgement.judge(Reading(values=aged), CACHE_RESOURCE)
    assert finding.summary == "memory at 96.0 % (2 GiB, threshold 95 %), Cloud Monitoring, 170 s old"


@pytest.mark.parametrize("state", sorted(memorystore_judgement.AT_WORK))
def test_while_google_is_at_work_nothing_else_counts(state: str) -> None:
    (finding,) = memorystore_judgement.judge(Reading(values=FULL_REDIS | {"state": state}), CACHE_RESOURCE)
    assert (finding.symptom, finding.health) == ("in_transition", Health.DEGRADED)


@pytest.mark.parametrize(
    ("tier", "connections"),
    [
        ("db-f1-micro", 25),
        ("db-g1-small", 50),
        ("db-custom-1-3840", 100),
        ("db-custom-2-7680", 400),
        ("db-custom-96-638976", 1000),
        ("db-perf-optimized-N-2", 500),
        ("db-unheard-of", None),
        ("", None),
    ],
)
def test_a_tier_has_the_connections_that_google_names(tier: str, connections: int | None) -> None:
    assert default_connections(tier) == connections
