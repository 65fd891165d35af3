"""Conventions, held over the whole catalogue: a declaration that breaks one is found here, not in a review."""

import inspect

import pytest
from pydantic import ValidationError

from blocks.schema import Kind, Risk
from tasks.catalog import load_catalog, summarise
from tasks.core.declare import DeclarationError, NoArgs, Runbook, Scenario, Tool, ToolArgs, tool
from tasks.core.models import Change

CATALOG = load_catalog()
NAMED_BY_THE_REPORT = {
    "postgres_restart", "postgres_scale_connections", "postgres_vacuum", "postgres_kill_long_queries", "redis_flush", "redis_restart",
    "redis_memory_purge", "redis_info", "nginx_restart", "nginx_reload", "nginx_scale_connections", "nginx_clear_connections", "nginx_info",
    "redis_set_maxmemory", "redis_set_eviction_policy", "redis_evict_to", "postgres_terminate_idle", "postgres_sessions",
}  # fmt: skip


def test_every_kind_has_a_probe() -> None:
    assert set(CATALOG.probes) == set(Kind)


def test_the_named_tools_are_there() -> None:
    assert set(CATALOG.tools) >= NAMED_BY_THE_REPORT


@pytest.mark.parametrize("declared", CATALOG.tools.values(), ids=lambda one: one.name)
def test_a_tool_is_named_described_and_bounded(declared: Tool) -> None:
    assert declared.name.startswith(f"{declared.service}_")
    assert declared.summary[0].isupper()
    assert declared.summary.endswith(".")
    assert 0 < declared.timeout_seconds <= 120
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


@pytest.mark.parametrize("declared", CATALOG.scenarios.values(), ids=lambda one: one.name)
def test_a_scenarios_forbidden_tools_exist(declared: Scenario) -> None:
    assert declared.forbidden_tools <= set(CATALOG.tools)
    assert declared.expected_verdicts


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
