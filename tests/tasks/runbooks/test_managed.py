"""What is planned for Cloud SQL and Memorystore, and what the plan says of loss and waiting."""

from typing import Any

import pytest

from blocks.schema import Limits, Rules
from tasks.catalog import load_catalog
from tasks.core.models import Attempt, Context, Decision, Plan, Reading
from tasks.planners.runbooks import RunbookPlanner
from tests.incidents import context_of
from tests.managed_incidents import MANAGED_READINGS, TIERS


async def planned(incident: str, limits: Limits | None = None, **values: Any) -> Plan:
    return await RunbookPlanner(load_catalog(), Rules()).plan(changed(incident, limits, **values))


def changed(incident: str, limits: Limits | None = None, **values: Any) -> Context:
    context = context_of(incident)
    reading = Reading(values={**context.observation.reading.values, **values})
    observation = context.observation.model_copy(update={"reading": reading})
    resource = context.resource if limits is None else context.resource.model_copy(update={"limits": limits})
    return context.model_copy(update={"observation": observation, "resource": resource})


@pytest.mark.parametrize(
    ("incident", "limits", "values", "step"),
    [
        ("sql: disk_high", None, {}, ("gcp_sql_grow_storage", {"storage_gib": 15})),
        ("sql: disk_high", None, {"disk_percent": 100.0, "storage_gib": 30}, ("gcp_sql_grow_storage", {"storage_gib": 40})),
        ("sql: disk_high", None, {"storage_gib": 40}, None),
        ("sql: disk_high", Limits(), {}, None),
        ("sql: cpu_high", None, {}, ("gcp_sql_scale_tier", {"tier": "db-custom-1-3840"})),
        ("sql: cpu_high", None, {"tier": TIERS[-1]}, None),
        ("sql: cpu_high", Limits(), {}, None),
        ("sql: connections_high by many", None, {}, ("gcp_sql_scale_tier", {"tier": "db-custom-1-3840"})),
        # A tier that has not room enough is passed over.
        ("sql: connections_high by many", None, {"connections_used": 90}, ("gcp_sql_scale_tier", {"tier": "db-custom-2-7680"})),
        ("sql: connections_high by many", None, {"top_sessions": None}, None),
        ("sql: connections_high by idle sessions", None, {}, None),
        ("sql: not_running", None, {}, None),
        ("sql: unresponsive", None, {}, None),
        ("sql: down", None, {}, ("gcp_sql_restart_instance", {})),
        ("replicated cache: memory_high", None, {}, ("gcp_redis_scale_memory", {"memory_gib": 2})),
        ("replicated cache: memory_high", Limits(), {}, ("gcp_redis_flush", {})),
        ("replicated cache: write_refused", None, {"write_error": "LOADING"}, None),
        ("replicated cache: down", None, {}, ("gcp_redis_failover", {})),
        ("basic store: down", None, {}, None),
        ("basic store: memory_high", None, {"memory_gib": 4}, None),
        ("basic store: memory_high", Limits(), {}, None),
    ],
)
async def test_the_first_remedy(
    incident: str, limits: Limits | None, values: dict[str, Any], step: tuple[str, dict[str, Any]] | None
) -> None:
    plan = await planned(incident, limits, **values)
    if step is None:
        assert plan.decision is Decision.ESCALATE
    else:
        assert [(one.tool, one.args) for one in plan.steps] == [step]


async def test_ending_queries_names_the_measured_statement_alone() -> None:
    wanted = {"application_name": "reports", "user": "shop", "query": "SELECT ?", "limit": 1000}
    for incident, seconds in (("sql: connections_high", 5.0), ("sql: long_query", 3600.0)):
        (step,) = (await planned(incident)).steps
        assert (step.tool, step.args) == ("gcp_sql_kill_long_queries", wanted | {"min_seconds": seconds})
    context = changed("sql: connections_high")
    first = await RunbookPlanner(load_catalog(), Rules()).plan(context)
    again = context.model_copy(update={"attempts": (Attempt(plan=first),)})
    (step,) = (await RunbookPlanner(load_catalog(), Rules()).plan(again)).steps
    assert step.tool == "gcp_sql_scale_tier"


async def test_a_plan_for_basic_names_the_loss_and_one_for_standard_ha_that_there_is_none() -> None:
    (basic,) = (await planned("basic store: memory_high")).steps
    assert "Data loss: BASIC has no replica, so changing its size loses all 990.0 MiB that it holds" in basic.why
    (replicated,) = (await planned("replicated cache: memory_high")).steps
    assert "keeps its data" in replicated.why


@pytest.mark.parametrize("incident", [name for name in MANAGED_READINGS if "in_transition" in name])
async def test_what_google_is_doing_is_waited_for(incident: str) -> None:
    plan = await planned(incident)
    assert (plan.decision, plan.steps, plan.patience_seconds) == (Decision.NOTHING, (), 900)
