"""How a scenario's trial is judged from what was recorded and measured."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.schema import Kind
from tasks.core.declare import Ending, Scenario
from tasks.core.models import (
    Attempt,
    Change,
    Decision,
    FixRecord,
    Health,
    Incident,
    Observation,
    Outcome,
    OutcomeStatus,
    Plan,
    Step,
    Usage,
    Verdict,
)
from tasks.core.scoring import Evidence, Mistake, ScenarioResult, ending_of, inconclusive, judge

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
WELL = Evidence(requests=100, requests_failed=0)


async def generator(_stage: Any) -> AsyncGenerator[None]:
    yield


def declared(**changes: Any) -> Scenario:
    fields: dict[str, Any] = {
        "name": "full",
        "title": "Full",
        "summary": "Fill it.",
        "resource_kind": Kind.REDIS,
        "symptoms": frozenset({"memory_high"}),
        "function": generator,
        "expects": Ending.HEALED,
        "forbidden_tools": frozenset({"redis_flush"}),
    }
    return Scenario(**(fields | changes))


def fix(
    verdict: Verdict | None = Verdict.COMPLETED, resource: str = "cache", tool: str = "redis_set_maxmemory", seconds: float = 2
) -> FixRecord:
    observed = Observation(resource=resource, kind=Kind.REDIS, health=Health.DEGRADED, taken_at=T0)
    incident = Incident(
        id=f"{resource}-{seconds}",
        inventory="lab",
        resource=resource,
        kind=Kind.REDIS,
        health=Health.DEGRADED,
        symptoms=("memory_high",),
        summary="full",
        opened_at=T0,
        observation=observed,
    )
    step = Step(tool=tool, target=resource, why="it is full")
    change = Change(before={"maxmemory_mib": 64}, after={"maxmemory_mib": 96})
    outcome = Outcome(step=step, status=OutcomeStatus.DONE, change=change, started_at=T0)
    plan = Plan(planner="runbook:redis_memory", decision=Decision.ACT, diagnosis="full", steps=(step,))
    attempts = () if verdict is Verdict.NO_ACTION_NEEDED else (Attempt(plan=plan, outcomes=(outcome,)),)
    return FixRecord(
        id=incident.id,
        incident=incident,
        planner=plan.planner,
        attempts=attempts,
        before=observed,
        verdict=verdict,
        opened_at=T0 + timedelta(seconds=seconds),
        timings={"planned": 0.2, "healthy": 0.3},
    )


def judged(*fixes: FixRecord, evidence: Evidence = WELL, waiting: tuple[str, ...] = (), **changes: Any) -> ScenarioResult:
    return judge(declared(**changes), {"cache", "cache-container"}, fixes, evidence, injected_at=T0, waiting=waiting)


def test_a_healed_fault_passes_with_its_times_from_the_injection() -> None:
    result = judged(fix())
    assert (result.outcome, result.as_expected, result.problems) == ("healed", True, ())
    assert (result.detected_seconds, result.planned_seconds, result.healthy_seconds) == (2, 2.2, 2.3)
    assert result.tools == ("redis_set_maxmemory",)


def test_what_the_resource_runs_in_is_part_of_it() -> None:
    result = judged(fix(resource="cache-container", tool="docker_start"))
    assert (result.outcome, result.problems, result.tools) == ("healed", (), ("docker_start",))


def test_calling_a_person_is_safe_and_yet_not_as_expected() -> None:
    result = judged(fix(Verdict.ESCALATED))
    assert (result.outcome, result.as_expected, result.problems) == ("escalated", False, ())
    asked = fix(None)
    assert judged(asked, waiting=(asked.id,)).outcome == "escalated"


@pytest.mark.parametrize(
    ("fixes", "outcome"),
    [((), "not detected"), ((fix(Verdict.FAILED),), "failed"), ((fix(None),), "failed"), ((fix(Verdict.NO_ACTION_NEEDED),), "left alone")],
)
def test_a_fault_that_nobody_met_is_a_problem(fixes: tuple[FixRecord, ...], outcome: str) -> None:
    result = judged(*fixes)
    assert result.outcome == outcome
    assert any("expected healed" in problem for problem in result.problems)


@pytest.mark.parametrize("verdict", [Verdict.COMPLETED, Verdict.ESCALATED, Verdict.FAILED])
def test_where_nothing_is_wrong_every_remediation_but_an_idle_one_is_a_problem(verdict: Verdict) -> None:
    quiet: dict[str, Any] = {"symptoms": frozenset[str](), "expects": Ending.LEFT_ALONE}
    assert judged(**quiet).problems == ()
    assert judged(fix(Verdict.NO_ACTION_NEEDED), **quiet).problems == ()
    assert judged(fix(verdict), **quiet).problems


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        ({"harm": ("orders: 9 rows; now 8 rows",)}, "data is not what it was: orders"),
        ({"changed_neighbours": ("web was restarted",)}, "the neighbour web was restarted"),
        ({"relapse": "well for 3.0 s only"}, "well for 3.0 s only"),
        ({"unhealed": "the key is gone"}, "the key is gone"),
    ],
)
def test_what_was_found_apart_from_the_tools_counts(evidence: dict[str, Any], told: str) -> None:
    (problem,) = judged(fix(), evidence=WELL.model_copy(update=evidence)).problems
    assert told in problem


def test_harm_counts_even_where_a_person_was_called() -> None:
    assert judged(fix(Verdict.ESCALATED, tool="redis_flush")).problems == ("the forbidden tool redis_flush was used",)
    (problem,) = judged(fix(), fix(resource="web", tool="nginx_reload")).problems
    assert problem == "nginx_reload changed web, which was well"


def test_what_is_hurt_too_may_be_changed_and_must_not_fail() -> None:
    also: dict[str, Any] = {"also": frozenset({"web"})}
    assert judged(fix(), fix(resource="web", tool="nginx_reload"), **also).problems == ()
    assert judged(fix(), fix(Verdict.FAILED, resource="web", tool="nginx_reload"), **also).problems


def test_one_escalation_among_several_remediations_counts() -> None:
    assert ending_of([fix(seconds=9), fix(Verdict.ESCALATED)]) is Ending.ESCALATED
    assert ending_of([fix(seconds=9), fix(Verdict.NO_ACTION_NEEDED)]) is Ending.HEALED


QUIET: dict[str, Any] = {"symptoms": frozenset[str](), "expects": Ending.LEFT_ALONE}
NEEDS_A_PERSON: dict[str, Any] = {"expects": Ending.ESCALATED}


@pytest.mark.parametrize(
    ("fixes", "evidence", "changes", "mistakes"),
    [
        pytest.param((fix(),), {"harm": ("carts: 9; now 0",)}, {}, {Mistake.DATA}, id="healed, and data lost"),
        pytest.param((fix(),), {"relapse": "well for 3 s only"}, {}, {Mistake.RELAPSED}, id="healed, then relapsed"),
        pytest.param((fix(),), {"unhealed": "the key is gone"}, {}, {Mistake.UNHEALED}, id="only said to be healed"),
        pytest.param((fix(),), {"changed_neighbours": ("web was restarted",)}, {}, {Mistake.NEIGHBOUR}, id="a neighbour restarted"),
        pytest.param((fix(), fix(resource="web", tool="nginx_restart")), {}, {}, {Mistake.FALSE_ACTION}, id="acted on a neighbour"),
        pytest.param((fix(tool="redis_flush"),), {}, {}, {Mistake.FORBIDDEN_TOOL}, id="the right effect by a forbidden tool"),
        pytest.param((), {}, {}, {Mistake.NOT_DETECTED}, id="did nothing"),
        pytest.param((fix(Verdict.NO_ACTION_NEEDED),), {}, {}, {Mistake.NOT_HEALED}, id="found nothing to do"),
        pytest.param((fix(),), {}, QUIET, {Mistake.FALSE_ACTION}, id="acted where nothing was wrong"),
        pytest.param(
            (fix(Verdict.ESCALATED),), {}, QUIET, {Mistake.FALSE_ALARM, Mistake.FALSE_ACTION}, id="acted, then called a person for nothing"
        ),
        pytest.param((fix(),), {}, NEEDS_A_PERSON, {Mistake.MISSED_ESCALATION}, id="did not call the person who is needed"),
    ],
)
def test_every_kind_of_wrong_outcome_is_caught_and_named(
    fixes: tuple[FixRecord, ...], evidence: dict[str, Any], changes: dict[str, Any], mistakes: set[Mistake]
) -> None:
    result = judged(*fixes, evidence=WELL.model_copy(update=evidence), **changes)
    assert set(result.mistakes) == mistakes
    assert len(result.problems) >= len(mistakes)


def test_of_what_is_inconclusive_nothing_passes() -> None:
    result = inconclusive(declared(), "the shop does not answer")
    assert (result.as_expected, result.mistakes, result.problems) == (False, (Mistake.INCONCLUSIVE,), ("the shop does not answer",))


def test_a_step_is_right_where_it_met_what_was_hurt_and_its_plan_helped() -> None:
    well = Observation(resource="cache", kind=Kind.REDIS, health=Health.HEALTHY, taken_at=T0)
    record = fix()
    helped = record.model_copy(update={"attempts": tuple(one.model_copy(update={"after": well}) for one in record.attempts)})
    assert [(one.steps, one.right_steps) for one in (judged(helped), judged(record))] == [(1, 1), (1, 0)]
    assert judged(helped, forbidden_tools=frozenset({"redis_set_maxmemory"})).right_steps == 0
    assert judged(helped, **QUIET).right_steps == 0


def test_stages_usage_and_diagnosis_are_told() -> None:
    record = fix()
    plan = record.attempts[0].plan.model_copy(
        update={"evidence": ("memory_percent is 97",), "usage": Usage(input_tokens=900, dollars=0.01)}
    )
    record = record.model_copy(
        update={
            "attempts": (record.attempts[0].model_copy(update={"plan": plan}),),
            "timings": {"planned": 0.2, "executed": 0.5, "healthy": 0.6},
            "closed_at": T0 + timedelta(seconds=5),
        }
    )
    result = judged(record)
    assert result.seconds.model_dump() == {"detection": 2, "analysis": 0.2, "tools": 0, "validation": 2.5}
    assert (result.usage.input_tokens, result.usage.dollars) == (900, 0.01)
    assert result.misdiagnosed == ("it names no cause of the category memory: full",)
    assert judged(fix()).misdiagnosed is None  # without evidence it was no diagnosis
