"""GET /healthz, and the shop itself, while a dependency is away and after it is back."""

from __future__ import annotations

import time

import pytest
from shop_servers import Cache, Postgres, RunningShop, Server, wait_until


@pytest.fixture(params=["database", "cache"])
def dependency(request: pytest.FixtureRequest, postgres: Postgres, cache: Cache) -> tuple[str, Server, str]:
    """The name of a dependency, its server, and a path that needs it."""
    name: str = request.param
    return (name, postgres.server, "/products") if name == "database" else (name, cache.server, "/carts/customer-001")


def test_all_well(shop: RunningShop, cache: Cache) -> None:
    answer = shop.get("/healthz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert {name: (entry["ok"], entry["error"]) for name, entry in body["dependencies"].items()} == {
        "database": (True, None),
        "cache": (True, None),
    }
    with cache.client() as client:
        assert client.strlen("health:write") == 20 * 1024
        assert 0 < client.ttl("health:write") <= 5


def test_a_dependency_that_is_away_from_the_start(fresh_shop: RunningShop, dependency: tuple[str, Server, str]) -> None:
    name, server, path = dependency
    server.stop()
    fresh_shop.server.start()
    answer = fresh_shop.get("/healthz")
    assert answer.status_code == 503
    assert {key: entry["ok"] for key, entry in answer.json()["dependencies"].items() if not entry["ok"]} == {name: False}
    refused = fresh_shop.get(path)
    assert refused.status_code == 503
    assert refused.json()["error"]["dependency"] == name
    assert fresh_shop.get("/").status_code == 200
    assert fresh_shop.get("/load").status_code == 200
    server.start()
    wait_until(lambda: fresh_shop.get("/healthz").status_code == 200, 5, "health after the start of the dependency")
    assert fresh_shop.get(path).status_code == 200
    assert f"shop.{name}" in {line["logger"] for line in fresh_shop.log() if line["level"] == "ERROR"}


def test_a_dependency_that_restarts(shop: RunningShop, dependency: tuple[str, Server, str]) -> None:
    _, server, path = dependency
    for _ in range(3):
        assert shop.get(path).status_code == 200
    server.stop()
    assert shop.get(path).status_code == 503
    assert shop.get("/").text.count("<li>") == 100
    server.start()
    assert wait_until(lambda: shop.get(path).status_code == 200, 5, "the path after a restart") < 2
    assert shop.get("/healthz").status_code == 200


def test_a_dependency_that_hangs(shop: RunningShop, dependency: tuple[str, Server, str]) -> None:
    name, server, path = dependency
    assert shop.get("/healthz").status_code == 200
    server.freeze()
    started = time.monotonic()
    answer = shop.get("/healthz")
    assert time.monotonic() - started < 2
    assert answer.status_code == 503
    assert answer.json()["dependencies"][name]["seconds"] < 1
    refused = shop.get(path)
    assert refused.status_code == 503
    assert refused.json()["error"]["dependency"] == name
    assert time.monotonic() - started < 4
    server.thaw()
    wait_until(lambda: shop.get(path).status_code == 200, 5, "the path after a hang")
    wait_until(lambda: shop.get("/healthz").status_code == 200, 5, "health after a hang")


def test_connections_used_up_fail_the_check_while_the_pool_goes_on(shop: RunningShop, postgres: Postgres) -> None:
    wait_until(lambda: shop.get("/products").status_code == 200, what="the pool connected")
    postgres.query("ALTER ROLE shop CONNECTION LIMIT 1")
    try:
        wait_until(lambda: shop.get("/healthz").status_code == 503, what="the check failing")
        error = shop.get("/healthz").json()["dependencies"]["database"]["error"]
        assert "too many connections" in error
        assert shop.get("/products").status_code == 200
    finally:
        postgres.query("ALTER ROLE shop CONNECTION LIMIT -1")
    wait_until(lambda: shop.get("/healthz").status_code == 200, 5, "the check well again")


def test_an_outage_takes_few_lines_of_log(fresh_shop: RunningShop, cache: Cache) -> None:
    fresh_shop.server.start()
    cache.server.stop()
    for _ in range(20):
        assert fresh_shop.get("/carts/ann").status_code == 503
    assert len([line for line in fresh_shop.log() if line["logger"] == "shop.cache"]) == 1
