"""Figures of a container from the engine's statistics of the last seconds. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tasks.clients.container_facts import MIB, epoch_seconds

WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class Sample:
    """One second's statistics."""

    at: float
    """Epoch seconds, as the engine read them."""
    cpu_seconds: float
    """Used since the container's start."""
    periods: int
    """Of the scheduler, since the start."""
    throttled_periods: int
    memory_bytes: int
    """Without what the kernel would give back at once: files that are not in use."""
    processes: int | None = None


def read_sample(told: Mapping[str, Any]) -> Sample | None:
    """A sample from the engine's JSON; None where the container did not run."""
    at = epoch_seconds(told["read"])
    memory = told["memory_stats"]
    if at is None or "usage" not in memory:
        return None
    details = memory.get("stats", {})
    # cgroup v1 counts the whole tree under total_, v2 has just the one.
    unused_files = details.get("total_inactive_file", details.get("inactive_file", 0))
    throttling = told["cpu_stats"].get("throttling_data", {})
    return Sample(
        at=at,
        cpu_seconds=told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        periods=throttling.get("periods", 0),
        throttled_periods=throttling.get("throttled_periods", 0),
        memory_bytes=max(memory["usage"] - unused_files, 0),
        processes=told.get("pids_stats", {}).get("current"),
    )


class Samples:
    """The samples of the last seconds. A restart or a new limit begins anew."""

    def __init__(self) -> None:
        self._kept: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """Keep a sample, and forget those that are too old."""
        if self._kept and sample.cpu_seconds < self._kept[-1].cpu_seconds:
            self._kept.clear()
        self._kept.append(sample)
        while self._kept[-1].at - self._kept[0].at > WINDOW_SECONDS:
            self._kept.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def last(self) -> Sample | None:
        """The latest."""
        return self._kept[-1] if self._kept else None

    @property
    def cpus(self) -> float | None:
        """Cores in use on average; None before the second sample."""
        if len(self._kept) < 2 or self._kept[-1].at <= self._kept[0].at:
            return None
        return (self._kept[-1].cpu_seconds - self._kept[0].cpu_seconds) / (self._kept[-1].at - self._kept[0].at)

    @property
    def throttled_percent(self) -> float | None:
        """Share of the periods in which the container was held back for its CPU limit; None before the second sample."""
        if len(self._kept) < 2:
            return None
        periods = self._kept[-1].periods - self._kept[0].periods
        return 100 * (self._kept[-1].throttled_periods - self._kept[0].throttled_periods) / periods if periods else 0.0


def usage(samples: Samples, memory_limit_mib: float | None, cpus_limit: float | None) -> dict[str, JsonValue]:
    """The figures as probe and tools name them; a share is null without a limit."""
    memory = None if samples.last is None else samples.last.memory_bytes / MIB
    return {
        "memory_mib": _rounded(memory),
        "memory_limit_mib": memory_limit_mib,
        "memory_percent": _share(memory, memory_limit_mib),
        "cpus_used": _rounded(samples.cpus),
        "cpus_limit": cpus_limit,
        "cpu_percent": _share(samples.cpus, cpus_limit),
        "throttled_percent": _rounded(samples.throttled_percent),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _share(used: float | None, limit: float | None) -> float | None:
    return None if used is None or limit is None else round(100 * used / limit, 2)
