"""What monitors leave for each other."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.core.models import Health
from tasks.core.parts import Share
from tasks.core.trends import History
from tasks.records.repository import Records
from tasks.records.rows import Status

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
Query = Callable[..., Any]


def status(resource: str = "shop-cache", health: Health = Health.HEALTHY, headline: float | None = 40.0, after: int = 0) -> Status:
    return Status(resource=resource, health=health, summary=f"memory at {headline} %", headline=headline, taken_at=T0 + after * SECOND)


async def test_only_what_changed_is_written(records: Records, query: Query) -> None:
    assert await records.save_statuses("lab", [status(f"shop-{number}") for number in range(3)]) == 3
    before = await query("SELECT * FROM evenkeel_statuses WHERE resource <> 'shop-1' ORDER BY resource")
    again = [status(f"shop-{number}", headline=41.0 if number == 1 else 40.0, after=1) for number in range(3)]
    assert await records.save_statuses("lab", again) == 1
    assert await query("SELECT * FROM evenkeel_statuses WHERE resource <> 'shop-1' ORDER BY resource") == before
    assert await query("SELECT resource, headline FROM evenkeel_statuses WHERE headline > 40") == [("shop-1", 41.0)]
    assert await records.save_statuses("lab", again) == 0
    assert await records.save_statuses("lab", []) == 0


async def test_since_is_kept_while_the_health_stays(records: Records) -> None:
    async def since(health: Health, headline: float, after: int) -> datetime | None:
        await records.save_statuses("lab", [status(health=health, headline=headline, after=after)])
        (found,) = await records.statuses("lab")
        assert (found.health, found.taken_at) == (health, T0 + after * SECOND)
        return found.since

    assert await since(Health.HEALTHY, 40, 0) == T0
    assert await since(Health.HEALTHY, 50, 1) == T0
    assert await since(Health.DEGRADED, 96, 2) == T0 + 2 * SECOND
    assert await since(Health.DEGRADED, 97, 3) == T0 + 2 * SECOND
    assert await since(Health.HEALTHY, 40, 4) == T0 + 4 * SECOND


async def test_the_trend_is_the_last_twenty_figures(records: Records) -> None:
    for number in range(23):
        await records.save_statuses("lab", [status(headline=float(number), after=number)])
    await records.save_statuses("lab", [status(health=Health.UNKNOWN, headline=None, after=23)])
    await records.save_statuses("lab", [status(headline=22.0, after=24)])
    (found,) = await records.statuses("lab")
    assert found.trend == tuple(float(number) for number in range(3, 23))


async def test_inventories_do_not_mix(records: Records) -> None:
    await records.save_statuses("lab", [status()])
    await records.save_statuses("other", [status(health=Health.FAILED)])
    assert [one.health for one in await records.statuses("lab")] == [Health.HEALTHY]
    assert await records.statuses("third") == []


async def test_a_thousand_resources_are_saved_at_once(records: Records, query: Query) -> None:
    assert await records.save_statuses("lab", [status(f"shop-{number}") for number in range(1000)]) == 1000
    assert await query("SELECT count(*) FROM evenkeel_statuses") == [(1000,)]


async def test_the_next_monitor_relieves_the_one_before(records: Records) -> None:
    assert await records.current_monitor("lab") is None
    assert not await records.monitor_swept("lab", "run-1", T0)
    await records.take_over_monitor("lab", "run-1", T0)
    assert await records.current_monitor("lab") == ("run-1", None)
    assert await records.monitor_swept("lab", "run-1", T0 + SECOND)
    assert await records.current_monitor("lab") == ("run-1", T0 + SECOND)
    await records.take_over_monitor("lab", "run-2", T0 + 2 * SECOND)
    await records.take_over_monitor("other", "run-3", T0)
    assert not await records.monitor_swept("lab", "run-1", T0 + 3 * SECOND)
    assert await records.monitor_swept("lab", "run-2", T0 + 3 * SECOND)
    assert await records.current_monitor("lab") == ("run-2", T0 + 3 * SECOND)


async def test_who_is_at_work_is_told_by_the_last_sweep_of_each_share(records: Records) -> None:
    keys = [Share(inventory="lab", shard=shard).key for shard in ("a", "b")]
    for key in (*keys, "lab", "lab/events", "laboratory"):
        await records.take_over_monitor(key, "run", T0)
        await records.monitor_swept(key, "run", T0 + SECOND)
    assert await records.monitors_at_work("lab", T0 + SECOND) == ["lab", *keys]
    await records.take_over_monitor(keys[0], "its next run", T0 + SECOND)
    assert keys[0] in await records.monitors_at_work("lab", T0 + SECOND), "handed on, not given up"
    await records.release_monitor(keys[0], T0 + SECOND)
    assert await records.monitors_at_work("lab", T0 + SECOND) == ["lab", keys[1]]
    assert not await records.monitor_swept(keys[0], "its next run", T0 + 2 * SECOND)
    assert await records.monitors_at_work("lab", T0 + 2 * SECOND) == []


async def test_histories_are_left_for_the_next_monitor(records: Records) -> None:
    rising: History = {"memory_percent": ((1.0, 40.0), (26.0, 41.5))}
    await records.save_histories("lab", {"shop-cache": rising, "shop-db": {}})
    await records.save_histories("lab", {"shop-db": {"connections_percent": ((1.0, 3.0),)}})
    await records.save_histories("lab", {})
    known = ("shop-cache", "shop-db", "shop-web")
    assert await records.histories("lab", known) == {"shop-cache": rising, "shop-db": {"connections_percent": ((1.0, 3.0),)}}
    assert await records.histories("lab", known[:1]) == {"shop-cache": rising}
    assert await records.histories("other", known) == {}
    many = {f"shop-{number}": rising for number in range(1000)}
    await records.save_histories("many", many)
    assert await records.histories("many", many) == many
