"""What the PostgreSQL runbooks make their remedies from."""

import math
from collections.abc import Mapping

from pydantic import JsonValue

from tasks.core.models import Context, Step

Values = Mapping[str, JsonValue]


def step(context: Context, tool: str, why: str, **args: JsonValue) -> Step:
    """A step on the incident's resource."""
    return Step(tool=tool, target=context.resource.name, args=args, why=why)


def number(values: Values, name: str) -> float | None:
    """A finite number among the values, or None."""
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def text(values: Values, name: str) -> str | None:
    """A text among the values, or None."""
    value = values.get(name)
    return value if isinstance(value, str) else None


def part(values: Values, name: str) -> Values:
    """A mapping among the values, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def evidence(values: Values, *names: str) -> tuple[str, ...]:
    """The values that were measured, as a plan cites them."""
    return tuple(f"{name} is {values[name]}" for name in names if values.get(name) is not None)
