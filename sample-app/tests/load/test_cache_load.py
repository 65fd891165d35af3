"""Pages in the cache: up to the share asked for, and gone again without anything else."""

from __future__ import annotations

import signal
import time

import pytest
from shop_servers import Cache, RunningShop, wait_until

PATH = "/load/cache/fill"
FULL_SECONDS = 20.0


def _percent(cache: Cache) -> float:
    with cache.client() as client:
        info = client.info("memory")
    return 100 * int(info["used_memory"]) / int(info["maxmemory"])


def test_fills_to_the_share_and_removes_exactly_that(shop: RunningShop, cache: Cache) -> None:
    with cache.client() as client:
        client.set("page:of-another", "kept", ex=20)
        before = sorted(key for key in client.scan_iter() if key != "health:write")
        started = time.monotonic()
        answer = shop.request("POST", PATH, {"percent": 95}).json()
        assert time.monotonic() - started < 3, "usually 0.3 s"
        assert answer["refused"] is None
        assert answer["used_memory_percent"] >= 95
        wait_until(lambda: 94 < _percent(cache) < 97, what="the share seen from outside")
        pages = [key for key in client.scan_iter("page:*") if key not in before]
        assert len(pages) == answer["keys"]
        assert {client.strlen(key) for key in pages} == {48 * 1024}
        assert 0 < client.ttl(pages[0]) <= 3600
        assert shop.get(PATH).json()["keys"] == answer["keys"]
        assert shop.request("DELETE", PATH).json()["removed"] == answer["keys"]
        assert sorted(key for key in client.scan_iter() if key != "health:write") == before
        client.delete("page:of-another")
    wait_until(lambda: _percent(cache) < 10, what="the memory given back")
    assert shop.get(PATH).json()["keys"] == 0


def test_a_full_cache_refuses_and_the_fill_says_so(shop: RunningShop, cache: Cache) -> None:
    with cache.client() as client:
        carts = {key: client.hgetall(key) for key in client.scan_iter("cart:*")}
        deadline = time.monotonic() + FULL_SECONDS
        # A buffer of some connection that is given back makes room for a moment.
        while shop.request("POST", PATH, {"percent": 100}) and (health := shop.get("/healthz")).status_code != 503:
            assert time.monotonic() < deadline, health.text
        assert "maxmemory" in health.json()["dependencies"]["cache"]["error"]
        # Topping up what is already full.
        assert shop.request("POST", PATH, {"percent": 100, "key_bytes": 65536}).status_code == 200
        keys = shop.get(PATH).json()["keys"]
        assert len(list(client.scan_iter("page:*"))) == keys
        assert {key: client.hgetall(key) for key in client.scan_iter("cart:*")} == carts
        shop.request("DELETE", PATH)
        assert list(client.scan_iter("page:*")) == []
    assert shop.get("/healthz").status_code == 200


def test_a_cache_that_evicts_ends_the_fill(shop: RunningShop, cache: Cache) -> None:
    with cache.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "16mb")
        try:
            # More than there is room for, in large values: the share stays just below.
            answer = shop.request("POST", PATH, {"percent": 100, "key_bytes": 1024 * 1024})
            assert answer.status_code == 200
            assert answer.json()["refused"] is None or "evicts" in answer.json()["refused"]
            assert shop.request("DELETE", PATH).status_code == 200
        finally:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "64mb")
        assert list(client.scan_iter("page:*")) == []


def test_without_a_memory_limit_there_is_nothing_to_fill(shop: RunningShop, cache: Cache) -> None:
    with cache.client() as client:
        client.config_set("maxmemory", "0")
        try:
            answer = shop.request("POST", PATH, {"percent": 50})
            status = shop.get("/load")
        finally:
            client.config_set("maxmemory", "64mb")
    assert answer.status_code == 409
    assert "maxmemory" in answer.json()["error"]["message"]
    assert status.json()["cache"]["used_memory_percent"] is None


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_a_cache(shop: RunningShop, cache: Cache, how: str) -> None:
    assert shop.request("POST", PATH, {"percent": 20}).status_code == 200
    if how == "killed":
        cache.server.stop(signal.SIGKILL)
    else:
        cache.server.freeze()
    for method, body in (("POST", {"percent": 50}), ("DELETE", None)):
        answer = shop.request(method, PATH, body)
        assert answer.status_code == 503
        assert answer.json()["error"]["dependency"] == "cache"
    assert "error" in shop.get("/load").json()["cache"]
