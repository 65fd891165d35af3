"""Reading what a probe measured: a value that is missing, or of another type than expected, says nothing."""

import math
from collections.abc import Mapping

from pydantic import JsonValue

Values = Mapping[str, JsonValue]


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


def items(values: Values, name: str) -> list[JsonValue]:
    """A list among the values, or an empty one."""
    value = values.get(name)
    return value if isinstance(value, list) else []
