"""Nothing unchecked or unauthorised is ever executed."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.schema import Autonomy, Inventory, Kind, Limits, Resource, Risk, Role, Rules
from tasks.catalog import load_catalog
from tasks.core.errors import PlanInvalid
from tasks.core.models import Context, Finding, Health, Incident, Observation, Plan, Reading, Step
from tasks.core.plans import check_plan
from tasks.core.policy import Action, Standing, authorise

CATALOG = load_catalog()
START = datetime(2026, 1, 1, tzinfo=UTC)
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


SYMPTOMS = sorted(set().union(*(tool.symptoms for tool in CATALOG.tools.values())))
REDIS = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1", limits=Limits(memory_mib=128))
autonomies = st.sampled_from(list(Autonomy))
situations = st.fixed_dictionaries(
    {
        "resource": st.builds(
            lambda role, own: REDIS.model_copy(update={"role": role, "autonomy": own}), st.sampled_from(list(Role)), st.none() | autonomies
        ),
        "rules": st.builds(
            Rules,
            autonomy=autonomies,
            autonomy_of_risk=st.dictionaries(st.sampled_from(list(Risk)), autonomies),
            max_fixes_per_hour=st.integers(1, 30),
            max_fixes_per_hour_overall=st.integers(1, 30),
            cooldown_seconds=st.floats(0, 600),
        ),
        "tools": st.just(CATALOG.tools),
        "standing": st.builds(
            Standing,
            now=st.just(START),
            stopped=st.sampled_from(["", "", "a release is going on"]),
            autonomy=st.none() | autonomies,
            fixes_last_hour=st.integers(0, 30),
            fixes_last_hour_overall=st.integers(0, 30),
            seconds_since_last_use=st.dictionaries(st.sampled_from(sorted(REDIS_TOOLS)), st.floats(0, 600)),
            tried=st.frozensets(st.sampled_from(sorted(REDIS_TOOLS))),
        ),
        "observation": st.builds(
            lambda symptoms: Observation(
                resource="cache",
                kind=Kind.REDIS,
                health=Health.DEGRADED,
                findings=tuple(Finding(symptom=one, health=Health.DEGRADED, summary=one) for one in symptoms),
                reading=Reading(values={"maxmemory_mib": 64.0, "memory_percent": 96.9}),
                taken_at=START,
            ),
            st.lists(st.sampled_from(SYMPTOMS), max_size=3),
        ),
    }
)
steps = st.builds(
    Step,
    tool=st.sampled_from(sorted(CATALOG.tools)),
    target=st.sampled_from(["cache", "cache", "web"]),
    args=st.sampled_from([{}, {"mebibytes": 96}, {"mebibytes": 64}, {"mebibytes": 129}]),
    why=st.just("test"),
)
BUILT_ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@BUILT_ONCE
@given(step=steps, situation=situations, approved=st.booleans())
def test_what_policy_never_allows(incident: Incident, step: Step, situation: dict[str, Any], approved: bool) -> None:
    tool = CATALOG.tools[step.tool]
    ruling = authorise(step, tool, incident=incident, **situation, approved=approved)
    assert ruling.reason
    if ruling.action is not Action.ALLOW:
        return
    assert (step.target, tool.service) == ("cache", Kind.REDIS)
    if tool.risk is Risk.READ_ONLY:
        return
    rules, standing, resource = situation["rules"], situation["standing"], situation["resource"]
    said = {resource.autonomy or rules.autonomy, rules.autonomy_of_risk.get(tool.risk), standing.autonomy}
    assert not standing.stopped
    assert not said & {Autonomy.OBSERVE, Autonomy.PROPOSE}
    assert tool.symptoms & {finding.symptom for finding in situation["observation"].findings}
    if tool.name == "redis_set_maxmemory":
        assert step.args == {"mebibytes": 96}
    if approved:
        return
    assert said <= {Autonomy.AUTO, None}
    assert standing.fixes_last_hour < rules.max_fixes_per_hour
    assert standing.fixes_last_hour_overall < rules.max_fixes_per_hour_overall
    assert not (tool.risk is Risk.DESTRUCTIVE and resource.role is Role.STORE)
    assert set(tool.after) <= standing.tried
    assert tool.risk is Risk.REVERSIBLE or not standing.seconds_since_last_use.get(tool.name, math.inf) < rules.cooldown_seconds


@BUILT_ONCE
@given(step=steps, situation=situations)
def test_a_persons_approval_answers_questions_and_lifts_no_denial(incident: Incident, step: Step, situation: dict[str, Any]) -> None:
    tool = CATALOG.tools[step.tool]
    without = authorise(step, tool, incident=incident, **situation)
    after = authorise(step, tool, incident=incident, **situation, approved=True)
    assert after.action is (Action.DENY if without.action is Action.DENY else Action.ALLOW)
    assert after.reason == without.reason or (without.action is Action.ASK and after.reason.startswith("approved by a person"))


@BUILT_ONCE
@given(step=steps, situation=situations, autonomy=autonomies)
def test_a_runs_own_autonomy_only_lowers(incident: Incident, step: Step, situation: dict[str, Any], autonomy: Autonomy) -> None:
    caution = [Action.ALLOW, Action.ASK, Action.DENY]
    tool, standing = CATALOG.tools[step.tool], situation.pop("standing")
    without = authorise(step, tool, incident=incident, **situation, standing=standing.model_copy(update={"autonomy": None}))
    after = authorise(step, tool, incident=incident, **situation, standing=standing.model_copy(update={"autonomy": autonomy}))
    assert caution.index(after.action) >= caution.index(without.action)
