"""What runbooks make their remedies from."""

from pydantic import JsonValue

from tasks.core.models import Context, Step
from tasks.core.values import Values, number


def step(context: Context, tool: str, why: str, **args: JsonValue) -> Step:
    """A step on the incident's resource."""
    return Step(tool=tool, target=context.resource.name, args=args, why=why)


def was_tried(context: Context, tool: str) -> bool:
    """Whether an earlier plan of the same incident had a step of that tool, and it did not do its part."""
    return any(one.tool == tool for attempt in context.attempts if not attempt.exonerated for one in attempt.plan.steps)


def measured(context: Context, name: str) -> float | None:
    """A finite number of the last reading, or None."""
    return number(context.observation.reading.values, name)


def evidence(values: Values, *names: str) -> tuple[str, ...]:
    """The values that were measured, as a plan cites them."""
    return tuple(f"{name} is {values[name]}" for name in names if values.get(name) is not None)
