"""Two monitors share one inventory: what one leaves the other watches, and nothing is fixed twice."""

import asyncio
from datetime import UTC, datetime

import pytest

from compose.description import LabDescription
from flows.monitor import monitor
from tasks.clients.polling import poll
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.core.parts import Share
from tests.flows.cache_fault import empty, fill

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
async def test_what_a_shard_leaves_is_watched_by_the_others(opened: Live, lab: LabDescription) -> None:
    shards = {name: Share(inventory="lab", shard=name) for name in ("a", "b")}
    resources = opened.inventory.resources
    (leaves,) = (name for name, share in shards.items() if "shop-cache" in share.own(resources, shards.values()))
    (stays,) = shards.keys() - {leaves}
    since = datetime.now(UTC)

    async def leave_and_fill() -> None:
        await monitor("lab", 1, 2.5, shard=leaves)
        assert await fill(lab, 97) >= 95

    try:
        async with asyncio.TaskGroup() as group:
            staying = group.create_task(monitor("lab", 1, 25, shard=stays))
            await leave_and_fill()
            fixes = await poll(lambda: closed_fixes(opened, since), seconds=20, every_seconds=0.2)
            await opened.records.release_monitor(shards[stays].key, datetime.now(UTC))
            await staying
        assert fixes is not None
        assert [(one.incident.resource, one.verdict) for one in fixes] == [("shop-cache", Verdict.COMPLETED)]
    finally:
        await empty(lab)


async def closed_fixes(opened: Live, since: datetime) -> list[FixRecord] | None:
    found = await opened.records.history(inventory="lab", since=since, limit=5)
    return found if found and all(one.closed_at is not None for one in found) else None
