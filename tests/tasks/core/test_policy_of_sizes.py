"""Sizes of what Google runs: upwards only, within what is declared, and by what the tier loses."""

from typing import Any

import pytest
from pydantic import JsonValue

from blocks.schema import Autonomy, Limits, Resource, Risk, Role, Rules
from tasks.catalog import load_catalog
from tasks.core.models import FixRecord, Plan, Step
from tasks.core.policy import Action, Ruling, Standing, authorise
from tasks.core.rendering import approval_markdown
from tests.incidents import NOW, context_of
from tests.managed_incidents import BASIC_RESOURCE, CACHE_RESOURCE, FULL_REDIS, SQL, SQL_RESOURCE, TIERS
from tests.tasks.unwell import incident_of, observation_of

TOOLS = load_catalog().tools
TIER, STORAGE, MEMORY = "gcp_sql_scale_tier", "gcp_sql_grow_storage", "gcp_redis_scale_memory"


def ruled(
    tool: str,
    args: dict[str, JsonValue],
    resource: Resource,
    symptom: str,
    values: dict[str, Any],
    rules: Rules = Rules(),  # noqa: B008 - immutable
) -> Ruling:
    observation = observation_of(resource, symptom, values=values)
    return authorise(
        Step(tool=tool, target=resource.name, args=args, why="test"),
        TOOLS[tool],
        tools=TOOLS,
        incident=incident_of(observation),
        resource=resource,
        observation=observation,
        rules=rules,
        standing=Standing(now=NOW),
    )


@pytest.mark.parametrize(
    ("wanted", "present", "tiers", "action", "reason"),
    [
        ("db-custom-1-3840", "db-g1-small", TIERS, Action.ALLOW, "disruptive, and cpu_high is measured"),
        ("db-f1-micro", "db-g1-small", TIERS, Action.DENY, "does not stand above db-g1-small in limits.tiers"),
        ("db-g1-small", "db-g1-small", TIERS, Action.DENY, "does not stand above db-g1-small in limits.tiers"),
        ("db-custom-96-638976", "db-g1-small", TIERS, Action.DENY, "the wanted tier db-custom-96-638976 is not among limits.tiers"),
        ("db-custom-1-3840", "db-n1-standard-1", TIERS, Action.DENY, "the present tier db-n1-standard-1 is not among limits.tiers"),
        ("db-custom-1-3840", None, TIERS, Action.DENY, "the present tier None is not among limits.tiers"),
        ("db-custom-1-3840", "db-g1-small", None, Action.DENY, "is not among limits.tiers: none"),
    ],
)
def test_a_tier_only_rises_among_the_declared(
    wanted: str, present: str | None, tiers: tuple[str, ...] | None, action: Action, reason: str
) -> None:
    resource = SQL_RESOURCE.model_copy(update={"limits": Limits(tiers=tiers)})
    ruling = ruled(TIER, {"tier": wanted}, resource, "cpu_high", SQL | {"tier": present, "cpu_percent": 99.0})
    assert (ruling.action, ruling.risk) == (action, Risk.DISRUPTIVE)
    assert reason in ruling.reason
    assert "by the hour" in ruling.cost


@pytest.mark.parametrize(
    ("resource", "tier", "action", "risk"),
    [
        (CACHE_RESOURCE, "STANDARD_HA", Action.ALLOW, Risk.DISRUPTIVE),
        (BASIC_RESOURCE, "STANDARD_HA", Action.ALLOW, Risk.DISRUPTIVE),
        (CACHE_RESOURCE, "BASIC", Action.ALLOW, Risk.DESTRUCTIVE),
        (BASIC_RESOURCE, "BASIC", Action.ASK, Risk.DESTRUCTIVE),
        (BASIC_RESOURCE, None, Action.ASK, Risk.DESTRUCTIVE),
    ],
)
def test_the_risk_of_scaling_is_that_of_the_measured_tier(resource: Resource, tier: str | None, action: Action, risk: Risk) -> None:
    ruling = ruled(MEMORY, {"memory_gib": 2}, resource, "memory_high", FULL_REDIS | {"tier": tier})
    assert (ruling.action, ruling.risk) == (action, risk)
    assert ("data of the resource" in ruling.loss) is (risk is Risk.DESTRUCTIVE)
    assert (resource.role is Role.STORE and risk is Risk.DESTRUCTIVE) is ("only a person may decide" in ruling.reason)
    # A rule for destructive steps holds where the step is destructive.
    strict = Rules(autonomy_of_risk={Risk.DESTRUCTIVE: Autonomy.OBSERVE})
    denied = ruled(MEMORY, {"memory_gib": 2}, resource, "memory_high", FULL_REDIS | {"tier": tier}, strict).action is Action.DENY
    assert denied is (risk is Risk.DESTRUCTIVE)


@pytest.mark.parametrize("role", list(Role))
def test_what_can_never_be_made_smaller_asks_a_person_who_is_told_what_it_costs(role: Role) -> None:
    resource = SQL_RESOURCE.model_copy(update={"role": role})
    ruling = ruled(STORAGE, {"storage_gib": 15}, resource, "disk_high", SQL | {"disk_percent": 98.0})
    assert (ruling.action, ruling.reason) == (Action.ASK, TOOLS[STORAGE].asks)
    assert ruling.loss == "nothing; but the storage can never be made smaller again"
    assert ruled(STORAGE, {"storage_gib": 41}, resource, "disk_high", SQL | {"disk_percent": 98.0}).action is Action.DENY
    assert ruled(STORAGE, {"storage_gib": 10}, resource, "disk_high", SQL | {"disk_percent": 98.0}).action is Action.DENY


async def test_a_person_reads_loss_and_cost() -> None:
    from tasks.planners.runbooks import RunbookPlanner

    for incident, loss, cost in (
        ("basic store: memory_high", "what could be lost: data of the resource", "cost: the added GiB's price"),
        ("replicated cache: memory_high", "what could be lost: connections", "cost: the added GiB's price"),
        ("sql: disk_high", "what could be lost: nothing; but", "cost: the added storage's price, every month"),
    ):
        context = context_of(incident)
        plan: Plan = await RunbookPlanner(load_catalog(), Rules()).plan(context)
        record = FixRecord(id="one", incident=context.incident, before=context.observation, opened_at=NOW)
        attempt = {"plan": plan, "observed": context.observation, "decisions": ("ask: x",)}
        shown = approval_markdown(FixRecord.model_validate({**record.model_dump(), "attempts": [attempt]}), TOOLS)
        assert loss in shown
        assert cost in shown
