"""The lab's baseline, as a dry run and for real."""

from typing import Any

import pytest
from prefect.client.schemas.objects import State

from compose.description import LabDescription
from flows.reset import reset
from tasks.connecting import Live
from tests.flows.cache_fault import connect, maxmemory_mib

pytestmark = pytest.mark.timeout(120)


async def test_a_dry_run_says_what_would_change_and_changes_nothing(opened: Live, lab: LabDescription) -> None:
    async with connect(lab) as redis:
        await redis.config_set("maxmemory", 96 * 2**20)
    state: State[Any] = await reset(autonomy="propose", return_state=True)
    assert (state.name, state.is_completed()) == ("Proposed", True)
    assert state.message == "nothing was done; what would change something: redis_set_maxmemory {'mebibytes': 64} on shop-cache"
    assert await maxmemory_mib(lab) == 96
    await reset(resource="shop-cache")
    assert await maxmemory_mib(lab) == 64
