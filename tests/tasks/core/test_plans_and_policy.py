"""Nothing unchecked or unauthorised is ever executed."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from blocks.schema import Autonomy, Inventory, Kind, Risk, Role, Rules
from tasks.catalog import load_catalog
from tasks.core.errors import PlanInvalid
from tasks.core.models import Context, Incident, Plan, Step
from tasks.core.plans import check_plan
from tasks.core.policy import Action, authorise

CATALOG = load_catalog()
REDIS_TOOLS = CATALOG.tools_for(Kind.REDIS)


@pytest.fixture
def context(incident: Incident, inventory: Inventory) -> Context:
    return Context(incident=incident, resource=inventory.resource("cache"), observation=incident.observation)


def raw_plan(**changes: Any) -> dict[str, Any]:
    step = {"tool": "redis_set_maxmemory", "target": "cache", "args": {"mebibytes": 96}, "why": "memory at 97 %"}
    return {"planner": "test", "decision": "act", "diagnosis": "full", "steps": [step | changes.pop("step", {})]} | changes


def test_a_good_plan_passes(context: Context) -> None:
    plan = check_plan(raw_plan(), tools=CATALOG.tools, context=context, rules=Rules())
    assert plan.steps[0].args == {"mebibytes": 96}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (raw_plan(step={"tool": "redis_explode"}), "steps.0.tool"),
        (raw_plan(step={"tool": "postgres_restart", "args": {}}), "steps.0.tool"),
        (raw_plan(step={"target": "web"}), "steps.0.target"),
        (raw_plan(step={"args": {"mebibytes": "96"}}), "steps.0.args.mebibytes"),
        (raw_plan(step={"args": {"mebibytes": 10**9}}), "steps.0.args.mebibytes"),
        (raw_plan(step={"args": {"mebibytes": 96, "force": True}}), "steps.0.args.force"),
        (raw_plan(step={"args": {}}), "steps.0.args.mebibytes"),
        (raw_plan(step={"why": ""}), "plan.steps.0.why"),
        (raw_plan(steps=[]), "steps"),
        (raw_plan(decision="nothing"), "steps"),
        (raw_plan(steps=raw_plan()["steps"] * 9), "9 steps"),
        (raw_plan(decision="shrug"), "plan.decision"),
        (raw_plan(diagnosis=None), "plan.diagnosis"),
    ],
)
def test_a_bad_plan_is_refused_and_the_field_is_named(context: Context, raw: dict[str, Any], named: str) -> None:
    with pytest.raises(PlanInvalid) as caught:
        check_plan(raw, tools=CATALOG.tools, context=context, rules=Rules())
    assert any(named in problem for problem in caught.value.problems)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.dictionaries(st.sampled_from([*Plan.model_fields, "extra"]), json_values))
def test_no_answer_gets_past_the_check_in_another_way(context: Context, raw: dict[str, Any]) -> None:
    try:
        plan = check_plan(raw, tools=CATALOG.tools, context=context, rules=Rules())
    except PlanInvalid as error:
        assert error.problems
    else:
        assert all(step.target == "cache" and CATALOG.tools[step.tool].service is Kind.REDIS for step in plan.steps)


def step_of(tool: str, target: str = "cache") -> Step:
    return Step(tool=tool, target=target, why="test")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tool=st.sampled_from(sorted(CATALOG.tools)),
    target=st.sampled_from(["cache", "web", "app"]),
    autonomy=st.sampled_from(list(Autonomy)),
    role=st.sampled_from(list(Role)),
    risks=st.frozensets(st.sampled_from(list(Risk))),
    fixes=st.integers(0, 50),
)
def test_what_policy_never_allows(
    inventory: Inventory, incident: Incident, tool: str, target: str, autonomy: Autonomy, role: Role, risks: frozenset[Risk], fixes: int
) -> None:
    resource = inventory.resource("cache").model_copy(update={"role": role})
    rules = Rules(autonomy=autonomy, allowed_risks=risks)
    declared = CATALOG.tools[tool]
    ruling = authorise(step_of(tool, target), declared, incident=incident, resource=resource, rules=rules, fixes_last_hour=fixes)
    assert ruling.reason
    if ruling.action is not Action.ALLOW:
        return
    assert (target, declared.service) == ("cache", Kind.REDIS)
    if declared.risk is Risk.READ_ONLY:
        return
    assert autonomy is Autonomy.AUTO
    assert fixes < rules.max_fixes_per_hour
    assert declared.risk in risks or (declared.risk is Risk.DESTRUCTIVE and role is Role.CACHE)
    assert not (declared.risk is Risk.DESTRUCTIVE and role is Role.STORE)


def test_a_store_is_never_flushed_without_a_person(inventory: Inventory, incident: Incident) -> None:
    store = inventory.resource("cache").model_copy(update={"role": Role.STORE})
    every_risk = Rules(allowed_risks=frozenset(Risk))
    flush = CATALOG.tools["redis_flush"]
    ruling = authorise(step_of("redis_flush"), flush, incident=incident, resource=store, rules=every_risk, fixes_last_hour=0)
    assert ruling.action is Action.ASK


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tool=st.sampled_from(sorted(REDIS_TOOLS)), autonomy=st.sampled_from(list(Autonomy)))
def test_the_resources_own_autonomy_counts(inventory: Inventory, incident: Incident, tool: str, autonomy: Autonomy) -> None:
    assume(REDIS_TOOLS[tool].risk is not Risk.READ_ONLY)
    resource = inventory.resource("cache").model_copy(update={"autonomy": autonomy})
    ruling = authorise(step_of(tool), REDIS_TOOLS[tool], incident=incident, resource=resource, rules=Rules(), fixes_last_hour=0)
    if autonomy in {Autonomy.OBSERVE, Autonomy.PROPOSE}:
        assert ruling.action is Action.DENY
    if autonomy is Autonomy.APPROVE:
        assert ruling.action is Action.ASK
