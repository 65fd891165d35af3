"""What of a context is left out of a prompt when its budget of tokens is exceeded, and in which order."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

LIST_LENGTH = 3
"""So many items stay of a list in the facts when the budget is exceeded."""

Data = dict[str, Any]
"""A prompt's sections by name."""
Less = Callable[[Data], Iterator[tuple[Data, str]]]
"""Gives up a section bit by bit: ever smaller data, each with what is gone."""


def _from_the_end(name: str) -> Less:
    def less(data: Data) -> Iterator[tuple[Data, str]]:
        section = data.get(name, [])
        for kept in range(len(section) - 1, -1, -1):
            smaller = {**data, name: section[:kept]} if kept else {other: value for other, value in data.items() if other != name}
            yield smaller, f"{len(section) - kept} of {len(section)}"

    return less


def _long_lists(data: Data) -> Iterator[tuple[Data, str]]:
    shorter = _shortened(data.get("facts", {}))
    if shorter != data.get("facts", {}):
        yield {**data, "facts": shorter}, f"after {LIST_LENGTH} items"


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list) and len(value) > LIST_LENGTH:
        return [*map(_shortened, value[:LIST_LENGTH]), f"and {len(value) - LIST_LENGTH} more"]
    return value


def _dependencies_values(data: Data) -> Iterator[tuple[Data, str]]:
    section = data.get("dependencies", [])
    for place in range(len(section) - 1, -1, -1):
        bare = [{name: value for name, value in other.items() if name != "values"} for other in section[place:]]
        yield {**data, "dependencies": [*section[:place], *bare]}, f"of {len(section) - place} of {len(section)}; their health stays"


def _whole(name: str) -> Less:
    def less(data: Data) -> Iterator[tuple[Data, str]]:
        if name in data:
            yield {other: value for other, value in data.items() if other != name}, "all"

    return less


DROPPED_FIRST: tuple[tuple[str, Less], ...] = (
    ("past fixes", _from_the_end("past_fixes")),  # the least alike first
    ("error templates", _from_the_end("error_templates")),  # the least severe and frequent first
    ("recent changes", _from_the_end("recent_changes")),  # the oldest first
    ("long lists of facts", _long_lists),
    ("readings of dependencies", _dependencies_values),
    ("facts", _whole("facts")),
    ("dependencies", _whole("dependencies")),
)
"""What is left out when the budget is exceeded, in this order. Incident, readings, tools and attempts are never left out."""
