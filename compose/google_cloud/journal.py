"""What the simulator writes down: what was wrong in an exchange, and which mutations came, so that none is sent twice unseen."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Violation:
    """One thing in an exchange that Google's documents don't know."""

    side: Literal["request", "answer"]
    method: str
    problem: str


@dataclass
class Mutation:
    """One request to change something, as it was received."""

    method: str
    target: str
    identity: str
    request_id: str | None
    outcome: str = "received"
    """`began` an operation, `repeated` one that its request_id began before, `refused` with a status, or `done` at once."""


@dataclass
class Journal:
    """What was written down since the start or the last reset."""

    violations: list[Violation] = field(default_factory=list)
    mutations: list[Mutation] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    """Method id -> how often it was called."""
    unforgiven: int = 0
    """Violations since the start, whatever was forgotten since."""

    def blame(self, side: Literal["request", "answer"], method: str, problems: list[str]) -> None:
        """Write violations down."""
        self.unforgiven += len(problems)
        self.violations.extend(Violation(side, method, problem) for problem in problems)

    def count(self, method: str) -> None:
        """One more call of a method."""
        self.calls[method] = self.calls.get(method, 0) + 1

    def forgive(self) -> None:
        """The violations so far were meant."""
        self.violations.clear()
        self.unforgiven = 0

    def clear(self) -> None:
        """Forget all."""
        self.violations.clear()
        self.mutations.clear()
        self.calls.clear()

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "violations": [asdict(one) for one in self.violations],
            "mutations": [asdict(one) for one in self.mutations],
            "calls": dict(self.calls),
            "unforgiven": self.unforgiven,
        }
