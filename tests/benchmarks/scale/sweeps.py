"""A healthy inventory swept by one, two and four monitors at once: time, CPU, memory, and what the databases grow by."""

import asyncio
import statistics
import time
from typing import Any

from compose.progress import doing
from tests.benchmarks.scale.place import Place
from tests.benchmarks.scale.watchers import Watcher, ended, release, watching

SWEEPS = 4
"""The first connects to everything and is told apart; the last is that after which the monitors end."""
FLUSH_SECONDS = 3.0
"""The server writes task runs and events in batches, once a second."""
RUNS_AN_HOUR = 60


async def swept(place: Place, inventory: str, monitors: int, every_seconds: float, sweeps: int = SWEEPS) -> dict[str, Any]:
    """One run of each monitor over an inventory that is registered, in step; a sweep's time is that of all of it, by the slowest."""
    sizes = place.mebibytes()
    seconds: list[float] = []
    problems: list[str] = []
    marks: list[dict[str, float]] = []
    with doing(f"{place.kind}: {inventory} by {monitors} monitor(s), {sweeps} sweeps"):
        async with watching(place, inventory, monitors, every_seconds, in_step=True) as watchers:
            for number in range(1, sweeps + 1):
                await asyncio.gather(*(watcher.event("begins") for watcher in watchers))
                marks.append(_used(place, watchers))
                if number == sweeps:
                    await release(place, watchers)
                started = time.monotonic()
                await asyncio.gather(*(watcher.step() for watcher in watchers))
                told = await asyncio.gather(*(watcher.event("swept") for watcher in watchers))
                seconds.append(time.monotonic() - started)
                problems += [f"sweep {number}: {one}" for each in told for one in each["unwell"]]
            watched = [sum(one["health"].values()) for one in told]
            resident = [watcher.resident_mib() for watcher in watchers]
            endings = await ended(watchers)
    await asyncio.sleep(FLUSH_SECONDS)
    grown = {name: size - sizes[name] for name, size in place.mebibytes().items()}
    cycles = sweeps - 2
    used = {name: (marks[-1][name] - marks[1][name]) / cycles for name in marks[0]}
    return {
        "database": place.kind,
        "resources": sum(watched),
        "monitors": monitors,
        "n": sweeps - 1,
        "seconds": round(statistics.median(seconds[1:]), 2),
        "most_seconds": round(max(seconds[1:]), 2),
        "first_seconds": round(seconds[0], 2),
        "watched_by_each": watched,
        "every_seconds": every_seconds,
        "cpu_seconds_a_sweep": {name: round(value, 2) for name, value in used.items()},
        "resident_mib": [round(one) for one in resident],
        "peak_mib": round(max(one["peak_mib"] for one in endings)),
        "grown_mib_a_run": {name: round(value, 3) for name, value in grown.items()},
        "grown_mib_an_hour": {name: round(value * RUNS_AN_HOUR, 1) for name, value in grown.items()},
        "problems": problems,
    }


def _used(place: Place, watchers: list[Watcher]) -> dict[str, float]:
    return {"monitors": sum(watcher.cpu_seconds() for watcher in watchers), **place.cpu_seconds()}
