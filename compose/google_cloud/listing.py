"""Lists: Google's filter expressions, as far as labels and plain fields go, and pages."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from compose.google_cloud.refusals import Refused

Item = TypeVar("Item")
TERM = re.compile(r'\(?\s*([A-Za-z][\w.-]*)\s*(!=|=|:|\beq\b|\bne\b)\s*(?:"([^"]*)"|([^\s")]+))\s*\)?', re.ASCII)


def matching(expression: str) -> Callable[[dict[str, Any]], bool]:
    """A test of one JSON object. Terms are joined by AND; `labels.app=shop`, `name:shop-*` and `status != "RUNNING"` are understood."""
    terms: list[tuple[str, bool, str]] = []
    for part in re.split(r"\s+AND\s+|(?<=\))\s*(?=\()", expression.strip()) if expression.strip() else ():
        found = TERM.fullmatch(part.strip())
        if found is None:
            raise Refused(400, f"Invalid value for field 'filter': '{expression}'. Invalid list filter expression.")
        field, operator, quoted, plain = found.groups()
        terms.append((field, operator in {"!=", "ne"}, plain if quoted is None else quoted))

    def holds(item: dict[str, Any]) -> bool:
        return all(_equal(_value(item, field), wanted) is not negated for field, negated, wanted in terms)

    return holds


def _value(item: Any, field: str) -> Any:
    for step in field.split("."):
        item = item.get(step) if isinstance(item, dict) else None
    return item


def _equal(value: Any, wanted: str) -> bool:
    if wanted == "*":
        return value is not None
    if wanted.endswith("*"):
        return str(value).startswith(wanted[:-1])
    return value is not None and str(value) == wanted


def page(items: Sequence[Item], size: int, token: str | None) -> tuple[Sequence[Item], str | None]:
    """One page, and the token of the next one. Refused with 400 for a token that is none."""
    if token is not None and not token.isdecimal():
        raise Refused(400, "Invalid value for field 'pageToken'.")
    start = int(token or 0)
    end = start + size
    return items[start:end], str(end) if end < len(items) else None
