"""How requests went, second by second, for the last hour."""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field

KEPT_SECONDS = 3600


@dataclass
class _Second:
    number: int
    failures: Counter[str] = field(default_factory=Counter)
    # Four bytes a request: an hour at 200 a second is 3 MB.
    latencies_seconds: array[float] = field(default_factory=lambda: array("f"))
    requests: int = 0


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed; `ordered` is not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Outcomes:
    """Counts, failures by kind and latencies, kept for an hour and then forgotten."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque()

    def add(self, started: float, latency_seconds: float | None, failure: str | None) -> None:
        """Count a request under the epoch second it started in; no latency when it was never sent."""
        second = self._second(int(started))
        if second is None:
            return
        second.requests += 1
        if latency_seconds is not None:
            second.latencies_seconds.append(latency_seconds)
        if failure is not None:
            second.failures[failure] += 1

    def summary(self, since: float = 0.0, until: float = math.inf) -> dict[str, object]:
        """What started in the whole seconds from `since` to `until`, both included; in epoch seconds.

        `requests`, `failures`, `failure_kinds` (kind -> count) and `latency_seconds` (`p50`, `p95`, `max`; null without
        a request that was sent). A request shows up once it has ended.
        """
        requests, kinds = 0, Counter[str]()
        latencies: list[float] = []
        for second in self._seconds:
            if math.floor(since) <= second.number <= until:
                requests += second.requests
                kinds.update(second.failures)
                latencies.extend(second.latencies_seconds)
        latencies.sort()
        shares = {"p50": 0.5, "p95": 0.95, "max": 1.0}
        return {
            "requests": requests,
            "failures": kinds.total(),
            "failure_kinds": dict(kinds),
            "latency_seconds": {name: round(percentile(latencies, share), 4) if latencies else None for name, share in shares.items()},
        }

    def _second(self, number: int) -> _Second | None:
        """The entry of that second, in order; None when it is too old to be kept."""
        place = len(self._seconds)
        # A request that ends late belongs to one of the last seconds.
        while place > 0 and self._seconds[place - 1].number > number:
            place -= 1
        if place > 0 and self._seconds[place - 1].number == number:
            return self._seconds[place - 1]
        if self._seconds and number <= self._seconds[-1].number - KEPT_SECONDS:
            return None
        found = _Second(number)
        self._seconds.insert(place, found)
        while self._seconds[0].number <= self._seconds[-1].number - KEPT_SECONDS:
            self._seconds.popleft()
        return found
