"""Keeping what a planner was asked and what it answered, so that another can be asked the same."""

from collections.abc import Sequence
from datetime import UTC, datetime

from tasks.connecting import Live
from tasks.core.models import Context, Plan
from tasks.core.policy import Ruling, Standing
from tasks.core.replay import Question, Ruled


async def remember_plan(live: Live, context: Context, plan: Plan, rulings: Sequence[Ruling], standing: Standing) -> Ruled:
    """Keep one plan of the incident's fix with what it was made from, without secrets; answers what was kept of the plan.

    RecordsUnavailable if it can't be kept.
    """
    # The reason of the switch is what somebody wrote; a ruling quotes it.
    kept = standing.model_copy(update={"stopped": live.redactor.text(standing.stopped)})
    question = Question.of(context, kept, live.inventory.rules)
    acted = Ruled(plan=plan, rulings=quotable(live, rulings))
    await live.records.save_question(context.incident.id, len(context.attempts) + 1, question, acted, datetime.now(UTC))
    return acted


def quotable(live: Live, rulings: Sequence[Ruling]) -> tuple[Ruling, ...]:
    """The rulings without secrets in their reasons."""
    return tuple(ruling.model_copy(update={"reason": live.redactor.text(ruling.reason)}) for ruling in rulings)
