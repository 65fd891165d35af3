"""Conventions, held over the whole catalogue: a declaration that breaks one is found here, not in a review."""

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blocks.schema import CLOUD_KINDS, Kind, Limits, Risk, Rules, Thresholds
from tasks.catalog import load_catalog, summarise
from tasks.core.declare import DeclarationError, Ending, NoArgs, Runbook, Scenario, Tool, ToolArgs, tool
from tasks.core.models import Attempt, Change, Context, Decision, Outcome, OutcomeStatus, Reading
from tasks.core.policy import Action, Ruling, Standing, authorise, tried_in
from tasks.planners.runbooks import RunbookPlanner
from tasks.runbooks.nginx import UNDECLARED_LIMIT
from tests.incidents import READINGS, context_of
from tests.managed_incidents import MANAGED_LIMITS

CATALOG = load_catalog()
NAMED_BY_THE_REPORT = {
    "postgres_restart", "postgres_scale_connections", "postgres_vacuum", "postgres_kill_long_queries", "redis_flush", "redis_restart",
    "redis_memory_purge", "redis_info", "nginx_restart", "nginx_reload", "nginx_scale_connections", "nginx_clear_connections", "nginx_info",
    "redis_set_maxmemory", "redis_set_eviction_policy", "redis_evict_to", "postgres_terminate_idle", "postgres_sessions",
}  # fmt: skip


LIMITS: dict[str, Any] = {"memory_mib": 128, "connections": 4096, "cpus": 1, **MANAGED_LIMITS}
PREFIXES = {Kind.CONTAINER: "docker", Kind.CLOUD_SQL: "gcp_sql", Kind.MEMORYSTORE: "gcp_redis", Kind.COMPUTE_ENGINE: "gcp_compute"}


PROPOSED = {"postgres_drop_slot", "redis_repair_aof", "gcp_sql_grow_storage", "gcp_redis_scale_memory"}
"""What a runbook may plan although it asks a person."""


def test_every_kind_has_a_probe() -> None:
    assert set(CATALOG.probes) == set(Kind)


def test_the_named_tools_are_there() -> None:
    assert set(CATALOG.tools) >= NAMED_BY_THE_REPORT


@pytest.mark.parametrize("declared", CATALOG.tools.values(), ids=lambda one: one.name)
def test_a_tool_is_named_described_and_bounded(declared: Tool) -> None:
    assert declared.name.startswith(f"{PREFIXES.get(declared.service, declared.service)}_")
    assert declared.summary[0].isupper()
    assert declared.summary.endswith(".")
    assert 0 < declared.timeout_seconds <= (1800 if declared.service in CLOUD_KINDS else 120)
    assert inspect.iscoroutinefunction(declared.function)
    described = [name for name, field in declared.args_model.model_fields.items() if not field.description]
    assert not described, f"{declared.name}: describe its arguments {described}"
    assert summarise(declared).args_schema["additionalProperties"] is False


@pytest.mark.parametrize("declared", CATALOG.tools.values(), ids=lambda one: one.name)
def test_a_tool_refuses_arguments_it_does_not_know(declared: Tool) -> None:
    with pytest.raises(ValidationError):
        declared.args_model.model_validate({"no_such_argument": 1})


@pytest.mark.parametrize("book", CATALOG.runbooks.values(), ids=lambda one: one.name)
def test_a_runbook_names_symptoms_that_its_probe_can_find(book: Runbook) -> None:
    source = inspect.getsource(inspect.getmodule(CATALOG.probes[book.service].judge))  # type: ignore[arg-type]
    assert all(f'"{symptom}"' in source for symptom in book.symptoms)


@pytest.mark.parametrize("declared", CATALOG.tools.values(), ids=lambda one: one.name)
def test_what_changes_something_names_symptoms_that_its_probe_can_find(declared: Tool) -> None:
    assert bool(declared.symptoms) is (declared.risk is not Risk.READ_ONLY)
    source = inspect.getsource(inspect.getmodule(CATALOG.probes[declared.service].judge))  # type: ignore[arg-type]
    assert not [symptom for symptom in declared.symptoms if f'"{symptom}"' not in source]


@pytest.mark.parametrize("declared", [one for one in CATALOG.tools.values() if one.growth], ids=lambda one: one.name)
def test_a_growth_compares_what_the_tool_takes_with_what_the_probe_reads(declared: Tool) -> None:
    measured = {name for _, values in READINGS.values() for name in values}
    for growth in declared.growth:
        assert declared.args_model.model_fields[growth.argument].is_required() or len(declared.growth) > 1
        assert {growth.measured, growth.share} <= measured
        assert growth.limit in Limits.model_fields


def test_the_limit_where_none_is_set_is_the_runbooks() -> None:
    (growth,) = CATALOG.tools["nginx_scale_connections"].growth
    assert growth.unset_limit == UNDECLARED_LIMIT


@pytest.mark.parametrize("declared", [one for one in CATALOG.tools.values() if one.after], ids=lambda one: one.name)
def test_a_milder_tool_is_one_and_a_remedy_for_the_same(declared: Tool) -> None:
    risks = [Risk.REVERSIBLE, Risk.DISRUPTIVE, Risk.DESTRUCTIVE]
    for name in declared.after:
        milder = CATALOG.tools[name]
        assert milder.service is declared.service
        assert milder.symptoms & declared.symptoms
        assert risks.index(milder.risk) <= risks.index(declared.risk)
        assert declared.name not in milder.after


async def remedies(context: Context) -> list[tuple[str, str, Ruling]]:
    """Runbook, tool and ruling of every step that runbooks plan for it, one plan after the other, as each is tried in vain."""
    planner, heard = RunbookPlanner(CATALOG, Rules()), list[tuple[str, str, Ruling]]()
    while (plan := await planner.plan(context)).decision is Decision.ACT:
        standing = Standing(now=context.observation.taken_at, tried=tried_in(context.attempts))
        for step in plan.steps:
            ruling = authorise(
                step,
                CATALOG.tools[step.tool],
                tools=CATALOG.tools,
                incident=context.incident,
                resource=context.resource,
                observation=context.observation,
                rules=Rules(),
                standing=standing,
            )
            heard.append((plan.planner.partition(":")[2], step.tool, ruling))
        now = context.observation.taken_at
        outcomes = tuple(Outcome(step=step, status=OutcomeStatus.DONE, started_at=now) for step in plan.steps)
        context = context.model_copy(update={"attempts": (*context.attempts, Attempt(plan=plan, outcomes=outcomes))})
    return heard


def limited(incident: str, **limits: Any) -> Context:
    """The incident with these limits."""
    context = context_of(incident)
    return context.model_copy(update={"resource": context.resource.model_copy(update={"limits": Limits(**limits)})})


@pytest.mark.parametrize("incident", READINGS)
@pytest.mark.parametrize("limits", [{}, LIMITS], ids=["no limits", "limits"])
async def test_whatever_a_runbook_plans_is_allowed(incident: str, limits: dict[str, Any]) -> None:
    refused = [
        (tool, ruling.reason)
        for _, tool, ruling in await remedies(limited(incident, **limits))
        if ruling.action is not Action.ALLOW and not (ruling.action is Action.ASK and tool in PROPOSED)
    ]
    assert not refused


@given(
    incident=st.sampled_from(["cache: memory_high", "web: connections_high", "db: connections_high by many"]),
    percent=st.floats(60, 100),
    threshold=st.floats(40, 100),
    limit=st.integers(16, 500),
)
async def test_runbooks_and_policy_agree_on_where_there_is_room(incident: str, percent: float, threshold: float, limit: int) -> None:
    """Also where the limit is reached, or allows for too little."""
    context = limited(incident, memory_mib=limit, connections=limit)
    values = dict(context.observation.reading.values)
    for used, most, share in (("used_memory_mib", 64, "memory_percent"), ("connections_used", 256, "connections_percent")):
        values |= {used: percent * most / 100, share: percent} if used in values else {}
    values |= {"connections_max": 256, "connections_used": percent * 2.56} if "connections_max" in values else {}
    observation = context.observation.model_copy(update={"reading": Reading(values=values)})
    thresholds = Thresholds(memory_percent=threshold, connections_percent=threshold)
    resource = context.resource.model_copy(update={"thresholds": thresholds})
    heard = await remedies(context.model_copy(update={"observation": observation, "resource": resource}))
    assert not [(tool, ruling.reason) for _, tool, ruling in heard if ruling.action is not Action.ALLOW]


async def test_every_runbook_that_does_something_was_heard_above_and_so_was_every_tool_it_names() -> None:
    heard = [one for incident in READINGS for one in await remedies(limited(incident, **LIMITS))]
    silent = {name for name in CATALOG.runbooks if name.endswith(("_left_to_a_person", "_in_transition"))}
    assert {book for book, _, _ in heard} == set(CATALOG.runbooks) - silent
    modules = {inspect.getmodule(book.function) for book in CATALOG.runbooks.values()}
    sources = [inspect.getsource(module) for module in modules if module is not None]
    assert {tool for _, tool, _ in heard} == {tool for tool in CATALOG.tools for source in sources if f'"{tool}"' in source}


@pytest.mark.parametrize("declared", CATALOG.scenarios.values(), ids=lambda one: one.name)
def test_a_scenarios_forbidden_tools_exist(declared: Scenario) -> None:
    assert declared.forbidden_tools <= set(CATALOG.tools)
    assert (declared.expects is Ending.LEFT_ALONE) or declared.symptoms


class Percent(ToolArgs):
    percent: int


async def without_docstring(client: object, args: Percent) -> Change:
    raise AssertionError


async def untyped(client: object, args: dict[str, int]) -> Change:
    """Take arguments that no schema describes."""
    raise AssertionError


async def good(client: object, args: NoArgs) -> Change:
    """Do something."""
    raise AssertionError


@pytest.mark.parametrize(
    ("function", "risk", "undo", "remedy"),
    [
        (without_docstring, Risk.READ_ONLY, None, "docstring"),
        (untyped, Risk.READ_ONLY, None, "ToolArgs"),
        (good, Risk.REVERSIBLE, None, "undo"),
        (good, Risk.DISRUPTIVE, "good", "undo"),
    ],
)
def test_a_declaration_that_breaks_a_convention_is_refused(function: object, risk: Risk, undo: str | None, remedy: str) -> None:
    with pytest.raises(DeclarationError, match=remedy):
        tool(service=Kind.REDIS, risk=risk, title="x", undo=undo)(function)  # type: ignore[type-var]
