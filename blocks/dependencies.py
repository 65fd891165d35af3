"""What depends on what, directly or not. Pure."""

from collections.abc import Iterable, Mapping
from typing import Protocol


class Dependent(Protocol):
    """Whatever has a name and names what it depends on, such as a resource."""

    @property
    def name(self) -> str:
        """Under which others depend on it."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the others."""


def find_circle(graph: dict[str, tuple[str, ...]]) -> list[str]:
    """A circle of the graph as a path that ends where it starts, or an empty list."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in graph.get(name, ()):
            circle = walk(other, [*path, name])
            if circle:
                return circle
        done.add(name)
        return []

    for name in graph:
        circle = walk(name, [])
        if circle:
            return circle
    return []


def dependencies_of(name: str, resources: Iterable[Dependent]) -> set[str]:
    """Every resource that the named one depends on, directly or not."""
    return reachable(name, {resource.name: resource.depends_on for resource in resources})


def reachable(name: str, graph: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Everything that the graph leads to from there; whoever asks often makes the graph once."""
    found: set[str] = set()
    todo = list(graph.get(name, ()))
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo.extend(graph.get(other, ()))
    return found
