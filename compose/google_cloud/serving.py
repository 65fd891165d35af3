"""What a method's implementation gets and says of itself, and the table of those that are simulated."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compose.google_cloud.access import Identity
from compose.google_cloud.discovery import Method
from compose.google_cloud.faults import Fault
from compose.google_cloud.journal import Mutation

if TYPE_CHECKING:
    from compose.google_cloud.project import Project

JsonObject = dict[str, Any]
ALWAYS_HONOURED = frozenset({"alt", "$alt", "prettyPrint", "quotaUser", "key", "$.xgafv"})


@dataclass(frozen=True)
class Call:
    """One request that was let in."""

    method: Method
    path: dict[str, str]
    query: dict[str, str]
    body: JsonObject
    identity: Identity
    faults: list[Fault] = field(default_factory=list)
    mutation: Mutation | None = None

    @property
    def resource(self) -> str:
        """What it is about, as `projects/p/zones/z/instances/i`."""
        return resource_of(self.path)

    def settle(self, outcome: str) -> None:
        """Write down what became of a mutation."""
        if self.mutation is not None:
            self.mutation.outcome = outcome

    def unreachable(self) -> set[str]:
        """Zones or regions of which lists know nothing for the while."""
        return {location for fault in self.faults for location in fault.unreachable}


Answer = Callable[["Project", Call], Awaitable[JsonObject]]


@dataclass(frozen=True)
class Served:
    """A method that is simulated."""

    answer: Answer
    permission: str | None
    mutates: bool
    query: frozenset[str]


SERVED: dict[str, Served] = {}


def serves(method: str, permission: str | None, *, mutates: bool = False, query: tuple[str, ...] = ()) -> Callable[[Answer], Answer]:
    """Declare the implementation of a method: what it needs, and which optional parameters it honours."""

    def declare(answer: Answer) -> Answer:
        assert method not in SERVED, method
        SERVED[method] = Served(answer, permission, mutates, ALWAYS_HONOURED | frozenset(query))
        return answer

    return declare


def resource_of(path: dict[str, str]) -> str:
    """What a path is about: its full name, or made from its parts."""
    for whole in ("name", "parent", "resource"):
        if whole in path:
            return path[whole] if "/" in path[whole] else f"projects/{path[whole]}"
    plural = {"project": "projects", "zone": "zones", "region": "regions", "instance": "instances", "operation": "operations"}
    return "/".join(f"{plural[name]}/{path[name]}" for name in plural if name in path)
