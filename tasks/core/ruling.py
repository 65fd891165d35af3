"""The policy's word on a whole plan, step by step."""

from collections.abc import Mapping

from blocks.schema import Rules
from tasks.core.declare import Tool
from tasks.core.models import Context, Plan
from tasks.core.policy import Action, Ruling, Standing, authorise

ORDER = (Action.ALLOW, Action.ASK, Action.DENY)


def rule_on(
    plan: Plan, context: Context, *, tools: Mapping[str, Tool], rules: Rules, standing: Standing, approved: bool = False
) -> tuple[Ruling, ...]:
    """A ruling for each step, in the steps' order; KeyError for a tool that is not among `tools`."""
    return tuple(
        authorise(
            step,
            tools[step.tool],
            tools=tools,
            incident=context.incident,
            resource=context.resource,
            observation=context.observation,
            rules=rules,
            standing=standing,
            approved=approved,
        )
        for step in plan.steps
    )


def strictest(rulings: tuple[Ruling, ...]) -> Action | None:
    """The word that counts for a plan as a whole; None where there is nothing to rule on."""
    return max((ruling.action for ruling in rulings), key=ORDER.index, default=None)
