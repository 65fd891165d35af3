"""How far plans agree, and the figures over many."""

from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from blocks.schema import Risk, Rules
from tasks.core.models import Decision, Plan, Step
from tasks.core.policy import Action, Ruling, Standing
from tasks.core.replay import Comparison, Question, Ruled, Sameness, agreement, sameness, wilson_percent
from tasks.core.replay_rendering import agreement_text, comparison_row
from tests.incidents import context_of

Call = tuple[str, dict[str, JsonValue]]


def plan(*tools: Call, decision: Decision = Decision.ACT, why: str = "it is full") -> Plan:
    steps = tuple(Step(tool=tool, target="shop-cache", args=args, why=why) for tool, args in tools)
    return Plan(planner="runbook", decision=decision, diagnosis="full", steps=steps)


RAISE: Call = ("redis_set_maxmemory", {"mebibytes": 96})
EVICT: Call = ("redis_evict_to", {"percent": 80})
NOBODY = plan(decision=Decision.ESCALATE)


def ruled(made: Plan, *actions: Action) -> Ruled:
    rulings = tuple(Ruling(action=action, reason="said so", risk=Risk.REVERSIBLE, loss="", undo="") for action in actions)
    return Ruled(plan=made, rulings=rulings)


def compared(was: Ruled, would: Ruled | None) -> Comparison:
    return Comparison(
        fix="f", attempt=1, resource="shop-cache", what="full", was=was, now=was.rulings, verdict="Completed", planner="gemini", would=would
    )


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (plan(RAISE), plan(RAISE, why="other words"), Sameness.SAME),
        (plan(RAISE), plan((RAISE[0], {"mebibytes": 100})), Sameness.ARGUMENTS),
        (plan(RAISE), plan(EVICT), Sameness.DIFFERENT),
        (plan(RAISE, EVICT), plan(EVICT, RAISE), Sameness.DIFFERENT),
        (plan(RAISE), NOBODY, Sameness.DIFFERENT),
        (NOBODY, plan(decision=Decision.NOTHING), Sameness.DIFFERENT),
        (NOBODY, NOBODY, Sameness.SAME),
    ],
)
def test_plans_agree_in_decision_and_steps_and_not_in_words(one: Plan, other: Plan, found: Sameness) -> None:
    assert sameness(one, other) is sameness(other, one) is found


def test_the_figures_tell_what_would_be_bolder_and_what_would_be_refused() -> None:
    allowed, asked, denied = (ruled(plan(RAISE), action) for action in (Action.ALLOW, Action.ASK, Action.DENY))
    differs = compared(allowed, allowed).model_copy(update={"now": asked.rulings})
    made = [compared(asked, allowed), compared(ruled(NOBODY), allowed), compared(allowed, denied), compared(allowed, None), differs]
    found = agreement(made)
    assert (found.plans, found.same, found.different, found.without_plan) == (5, 3, 1, 1)
    assert (found.bolder, found.refused, found.policy_differs) == (2, 1, 1)
    assert (found.low_percent, found.high_percent) == wilson_percent(3, 5)
    assert "**3 of 5 plans are the same** (60 %" in agreement_text(found)
    assert comparison_row(differs)["policy now"] == "ask: said so"
    assert comparison_row(made[3])["agrees"].endswith("no plan")
    assert agreement_text(agreement([])) == "No plan with a recorded question was found."


def test_the_interval_is_wilsons() -> None:
    # From the table in Wilson's formula at z = 1.96, as scipy's binomtest(...).proportion_ci(method="wilson") gives it.
    assert wilson_percent(0, 0) == (0.0, 100.0)
    assert wilson_percent(10, 10) == (72.2, 100.0)
    assert wilson_percent(5, 10) == (23.7, 76.3)
    assert wilson_percent(0, 20) == (0.0, 16.1)


def test_a_question_holds_all_of_the_context_but_what_is_kept_elsewhere() -> None:
    context = context_of("cache: memory_high")
    question = Question.of(context, Standing(now=datetime.now(UTC)), Rules())
    read = Question.model_validate_json(question.model_dump_json())
    assert read == question
    assert read.context == context.model_copy(update={"attempts": (), "tools": ()})
