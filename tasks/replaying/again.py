"""Asking again what was asked before: another planner, model, prompt or policy, and no server but the model's."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import JsonValue

from blocks.schema import Risk, Rules
from tasks.catalog import Catalog
from tasks.core.errors import EvenkeelError, ToolFailed
from tasks.core.models import Context, Plan, Step, Usage
from tasks.core.policy import Action, Ruling
from tasks.core.replay import Comparison, Planned, Ruled, SavedIncident
from tasks.core.ruling import rule_on
from tasks.planners.fallback import MeteredModel
from tasks.planners.gemini_errors import as_json
from tasks.planners.investigation import LONGEST_RESULT, Read
from tasks.planners.runbooks import RunbookPlanner

PlannerChoice = Literal["runbook", "gemini", "as recorded", "shadow"]


@dataclass(frozen=True)
class Answered:
    """What a planner said when it was asked again."""

    planner: str
    plan: Plan | None
    said: str = ""
    usage: Usage = field(default_factory=Usage)


Ask = Callable[[Planned, Context, Rules], Awaitable[Answered]]
OpenModel = Callable[[Rules, Read], MeteredModel]


def asking(choice: PlannerChoice, catalog: Catalog, open_model: OpenModel | None = None) -> Ask:
    """How the chosen planner is asked; `open_model` is needed for Gemini alone."""

    async def runbook(_planned: Planned, context: Context, rules: Rules) -> Answered:
        planner = RunbookPlanner(catalog, rules)
        try:
            plan = await planner.plan(context)
        except EvenkeelError as error:
            return Answered(planner.name, None, str(error))
        return Answered(plan.planner, plan)

    async def gemini(planned: Planned, context: Context, rules: Rules) -> Answered:
        if open_model is None:
            raise ValueError("planner: gemini needs a model")
        model = open_model(rules, recorded_readings(planned.acted.plan.notes))
        session = model.session()
        plan, said = await model.ask(context, session)
        return Answered("gemini" if plan is None else plan.planner, plan, said, session.usage)

    async def recorded(planned: Planned, _context: Context, _rules: Rules) -> Answered:
        return Answered(planned.acted.plan.planner, planned.acted.plan)

    async def shadow(planned: Planned, _context: Context, _rules: Rules) -> Answered:
        seen = planned.shadow
        if seen is None:
            return Answered("shadow", None, "no shadow was planning then")
        return Answered(seen.planner, None if seen.answer is None else seen.answer.plan, seen.said, seen.usage)

    choices: dict[PlannerChoice, Ask] = {"runbook": runbook, "gemini": gemini, "as recorded": recorded, "shadow": shadow}
    return choices[choice]


def recorded_readings(notes: Sequence[str]) -> Read:
    """What a model may read when it is asked again: what was read then, and nothing else."""

    async def read(step: Step) -> dict[str, JsonValue]:
        begin = f"investigated: {step.tool} {as_json(step.args, LONGEST_RESULT)}: "
        for note in notes:
            if note.startswith(begin):
                return {"read_then": note.removeprefix(begin)}
        raise ToolFailed("this was not read then, and no server is asked now; plan from what is known")

    return read


async def plan_again(saved: SavedIncident, planned: Planned, ask: Ask, catalog: Catalog, changes: Mapping[str, Any]) -> Comparison:
    """One plan made again: what would be done, and whether the policy would allow it, beside what was done.

    pydantic's ValidationError names a field of the changed rules that is wrong.
    """
    rules = Rules.model_validate({**planned.question.rules.model_dump(), **changes})
    context = saved.context(planned)
    context = context.model_copy(update={"tools": catalog.offered(context.observation)})
    answered = await ask(planned, context, rules)
    then = saved.fix.attempts[planned.attempt - 1] if planned.attempt <= len(saved.fix.attempts) else None
    return Comparison(
        fix=saved.fix.id,
        attempt=planned.attempt,
        resource=saved.fix.incident.resource,
        what=context.observation.summary,
        was=planned.acted,
        now=ruled(planned.acted.plan, planned, context, catalog, rules),
        done=() if then is None else tuple(f"{'undo: ' if one.undoes else ''}{one.step.tool}: {one.status}" for one in then.outcomes),
        verdict=str(saved.fix.verdict or "open"),
        planner=answered.planner,
        would=None if answered.plan is None else Ruled(plan=answered.plan, rulings=ruled(answered.plan, planned, context, catalog, rules)),
        said=answered.said,
        usage=answered.usage,
    )


def ruled(plan: Plan, planned: Planned, context: Context, catalog: Catalog, rules: Rules) -> tuple[Ruling, ...]:
    """The policy's word on a plan, as if it were the moment of the question."""
    gone = [step.tool for step in plan.steps if step.tool not in catalog.tools]
    if gone:
        reason = f"there is no tool {gone[0]} any more"
        return (Ruling(action=Action.DENY, reason=reason, risk=Risk.DESTRUCTIVE, loss="unknown", undo=""),) * len(plan.steps)
    return rule_on(plan, context, tools=catalog.tools, rules=rules, standing=planned.question.standing)
