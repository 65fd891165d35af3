"""Many caches that fill up at the same moment: until each is healthy by its own word, and whether any was fixed twice."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from compose.description import HOST, LabError
from compose.progress import doing
from tests.benchmarks.scale.place import Place
from tests.benchmarks.scale.watchers import ended, release, watching
from tests.benchmarks.scale.world import Caches, full, running_caches

MEBIBYTES = 16
FIRST_PERCENT, FULL_PERCENT = 80.0, 96.5
DEGRADED_PERCENT = 95.0
"""The product's default threshold, from which on it counts as full."""
EVERY_SECONDS = 2.0
HEALTHY_SECONDS = 180.0
CLOSED_SECONDS = 120.0
POLL_SECONDS = 0.1
VALUE_BYTES = 60_000
FILL = "for number = 1, tonumber(ARGV[1]) do redis.call('SET', ARGV[2] .. number, string.rep('x', tonumber(ARGV[3]))) end"


async def incidents(place: Place, directory: Path, count: int, monitors: int) -> dict[str, Any]:
    """So many at once, on servers of their own, met by so many monitors."""
    with doing(f"{place.kind}: {count} incidents at once, {monitors} monitor(s)"):
        async with AsyncExitStack() as cleanup:
            caches = await cleanup.enter_async_context(running_caches(directory, count, MEBIBYTES))
            registration = full(caches, place.records_url)
            await place.register(registration)
            own = {port: await cleanup.enter_async_context(_connection(caches, port)) for port in caches.ports}
            await asyncio.gather(*(_fill(redis, FIRST_PERCENT, "page:first:") for redis in own.values()))
            name = registration.inventory.name
            watchers = await cleanup.enter_async_context(watching(place, name, monitors, EVERY_SECONDS))
            await asyncio.gather(*(watcher.event("swept") for watcher in watchers))
            at, started = time.time(), time.monotonic()
            await asyncio.gather(*(_fill(redis, FULL_PERCENT, "page:more:") for redis in own.values()))
            filled = time.monotonic() - started
            healthy = await asyncio.gather(*(_until_healthy(redis, started) for redis in own.values()))
            fixes = await _until_closed(place, name, count)
            closed = time.monotonic() - started
            await release(place, watchers)
            await ended(watchers)
            changes = await asyncio.gather(*(_changes(redis) for redis in own.values()))
    return {
        "database": place.kind,
        "incidents": count,
        "monitors": monitors,
        "sweep_every_seconds": EVERY_SECONDS,
        "seconds_to_fill": round(filled, 2),
        "detected_seconds": {"median": _median([_opened(fix) - at for fix in fixes]), "most": _most([_opened(fix) - at for fix in fixes])},
        "healthy_seconds": {"median": _median(healthy), "most": _most(healthy)},
        "all_closed_seconds": round(closed, 2),
        "problems": _problems(fixes, changes, caches),
    }


def _connection(caches: Caches, port: int) -> Redis:
    login = caches.login
    return Redis(host=HOST, port=port, username=login.username, password=login.password, decode_responses=True, socket_timeout=10)


async def _share(redis: Redis) -> float:
    memory = await redis.info("memory")
    return 100 * float(memory["used_memory"]) / float(memory["maxmemory"])


async def _fill(redis: Redis, percent: float, prefix: str) -> None:
    """Fill a server from within, so that nothing needs to be sent."""
    for attempt in range(20):
        missing = percent - await _share(redis)
        if missing <= 0:
            return
        count = max(int(missing / 100 * MEBIBYTES * 2**20 / 65_536), 1)
        await redis.eval(FILL, 0, count, f"{prefix}{attempt}:", VALUE_BYTES)
    raise LabError(f"a cache could not be filled to {percent:g} %")


async def _until_healthy(redis: Redis, started: float) -> float:
    """Seconds from the fault until less is in use than the threshold allows, as the server itself says."""
    while time.monotonic() - started < HEALTHY_SECONDS:
        if await _share(redis) < DEGRADED_PERCENT:
            return time.monotonic() - started
        await asyncio.sleep(POLL_SECONDS)
    raise LabError(f"a cache was still full after {HEALTHY_SECONDS:g} s")


Fix = tuple[Any, ...]
"""Resource, verdict, opened_at, number of steps."""


async def _until_closed(place: Place, inventory: str, count: int) -> list[Fix]:
    query = (
        "SELECT resource, verdict, opened_at, (SELECT count(*) FROM evenkeel_steps WHERE fix_id = evenkeel_fixes.id)"
        " FROM evenkeel_fixes WHERE inventory = ? ORDER BY opened_at"
    )
    deadline = time.monotonic() + CLOSED_SECONDS
    while True:
        found = await asyncio.to_thread(place.query_records, query, inventory)
        if len(found) >= count and all(verdict is not None for _, verdict, _, _ in found):
            return found
        if time.monotonic() > deadline:
            still = [resource for resource, verdict, _, _ in found if verdict is None]
            raise LabError(f"{len(found)} fixes of {count} incidents on record after {CLOSED_SECONDS:g} s, still open: {still[:5]}")
        await asyncio.sleep(0.5)


async def _changes(redis: Redis) -> tuple[int, float]:
    """How often the server's configuration was set since its start, and its limit now, in MiB."""
    told = await redis.info("commandstats")
    calls = told.get("cmdstat_config|set", {"calls": 0})["calls"]
    return int(calls), int(str((await redis.config_get("maxmemory"))["maxmemory"])) / 2**20


def _problems(fixes: list[Fix], changes: list[tuple[int, float]], caches: Caches) -> list[str]:
    """What was fixed twice, or not as it should be."""
    names = [f"cache-{port}" for port in caches.ports]
    found = [f"{name}: {count} fixes on record" for name in names if (count := sum(fix[0] == name for fix in fixes)) != 1]
    for resource, verdict, _, steps in fixes:
        if (verdict, steps) != ("Completed", 1):
            found.append(f"{resource}: {verdict} after {steps} step(s)")
    for name, (calls, limit) in zip(names, changes, strict=True):
        if calls != 1:
            found.append(f"{name}: its configuration was set {calls} times; its limit is {limit:g} MiB")
    return found


def _opened(fix: Fix) -> float:
    at = datetime.fromisoformat(f"{fix[2]}+00:00") if isinstance(fix[2], str) else fix[2]
    return float(at.timestamp())


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def _most(values: list[float]) -> float:
    return round(max(values), 2)
