"""Whether what a planner cites was really shown to it. It refuses no plan: a person is told what to doubt."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.core.models import Context, Decision, Plan

WORD = re.compile(r"[\w.:/-]{3,}")
SHARE_OF_LINE = 0.5
"""An item cites a line of text where it holds that share of the line's words."""


def doubts(plan: Plan, context: Context, read: Iterable[str] = ()) -> list[str]:
    """One sentence for each item of evidence that cites nothing given, and for an expectation that names no reading.

    `read` is what was read while planning, beyond the context.
    """
    readings = set(context.observation.reading.values)
    names = readings | {finding.symptom for finding in context.observation.findings} | set(_names(context.facts))
    for other in context.dependencies:
        names |= {other.resource, *other.reading.values}
    lines = (*context.error_lines, *context.past_fixes, *context.recent_changes, *read, context.observation.summary)
    found = [f"evidence that names nothing that was read: {item}" for item in plan.evidence if not _cites(item, names, lines)]
    if plan.decision is Decision.ACT and not _words(plan.expected) & readings:
        found.append(f"expected names no reading of {context.resource.name}: {plan.expected or '(empty)'}")
    return found


def _cites(item: str, names: set[str], lines: Iterable[str]) -> bool:
    words = _words(item)
    if words & names:
        return True
    return any(len(words & of_line) >= SHARE_OF_LINE * len(of_line) for line in lines if (of_line := _words(line)))


def _words(text: str) -> set[str]:
    return {word.strip(".:/-") for word in WORD.findall(text)}


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _names(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _names(item)
