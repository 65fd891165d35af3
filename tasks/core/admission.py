"""How much is let in: a token bucket. No clock: the time comes with each question."""

from dataclasses import dataclass, field


@dataclass
class TokenBucket:
    """At most `capacity` at once, and `per_second` in the long run."""

    capacity: float
    per_second: float
    _tokens: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.per_second <= 0:
            raise ValueError("capacity has to be at least 1, per_second above 0")
        self._tokens = self.capacity

    def take(self, now: float) -> float:
        """0 if one more is let in; else the seconds until one will be. `now` is in seconds; a clock set back adds nothing."""
        passed = 0.0 if self._at is None else max(now - self._at, 0.0)
        self._at = now
        self._tokens = min(self.capacity, self._tokens + passed * self.per_second)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_second
