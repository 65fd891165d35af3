"""What is read of a prefix's keys, against a real Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks.core.errors import Unreachable
from tasks.tools.redis_keys import SAMPLED_KEYS, Prefix, redis_prefix_info

if TYPE_CHECKING:
    from tests.tasks.tools.conftest import CacheUnderTest


async def asked(cache: CacheUnderTest, prefix: str) -> dict[str, Any]:
    change = await redis_prefix_info(cache.client(), Prefix(prefix=prefix))
    assert change.before == change.after
    return change.after


async def test_sizes_types_and_expiry_are_read_and_nothing_is_touched(cache: CacheUnderTest) -> None:
    await cache.fill(1, "page", ex=1000)
    await cache.second.set("page:forever\n", "x" * 100_000)
    await cache.second.hset("page:hash", mapping={"a": "1"})
    await cache.fill(1, "cart")
    idle = await cache.second.object("IDLETIME", "page:1")

    found = await asked(cache, "page:")

    assert (found["sampled_keys"], found["are_all_keys_of_the_prefix"]) == (66, True)
    assert (found["without_expiry"], found["types"]) == (2, {"string": 65, "hash": 1})
    assert 980 <= found["median_seconds_to_expiry"] <= 1000
    assert 0 <= found["median_idle_seconds"] <= 20
    assert 1024 + 97 < found["kib"] < 1500
    assert found["largest"][0] == {"key": "page:forever?", "type": "string", "kib": pytest.approx(100, abs=15)}
    assert await cache.second.object("IDLETIME", "page:1") >= idle


async def test_of_many_keys_a_sample_is_read(cache: CacheUnderTest) -> None:
    await cache.fill(4)

    found = await asked(cache, "")

    assert (found["sampled_keys"], found["are_all_keys_of_the_prefix"]) == (SAMPLED_KEYS, False)


@pytest.mark.parametrize("prefix", ["*", "pag?", "[p]age", "page\\"])
async def test_a_prefix_is_no_pattern(cache: CacheUnderTest, prefix: str) -> None:
    await cache.second.mset({"page:1": "1", f"{prefix}own": "2"})

    assert [one["key"] for one in (await asked(cache, prefix))["largest"]] == [f"{prefix}own"]


async def test_without_keys_and_under_an_lfu_policy_what_is_unknown_is_none(cache: CacheUnderTest) -> None:
    nothing = await asked(cache, "nobody")
    await cache.second.config_set("maxmemory-policy", "allkeys-lfu")
    await cache.second.set("page:1", "1")

    found = await asked(cache, "page:")

    assert (nothing["sampled_keys"], nothing["are_all_keys_of_the_prefix"], nothing["median_seconds_to_expiry"]) == (0, True, None)
    assert (found["sampled_keys"], found["median_idle_seconds"]) == (1, None)


async def test_a_server_that_is_gone_is_unreachable(cache: CacheUnderTest) -> None:
    with pytest.raises(Unreachable):
        await redis_prefix_info(cache.client(port=1), Prefix(prefix=""))
