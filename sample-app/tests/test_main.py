"""Starting and stopping the process."""

from __future__ import annotations

import subprocess
import sys

import httpx
import psutil
import psycopg
import pytest
from shop_servers import SAMPLE_APP, Cache, Postgres, RunningShop, make_shop, wait_until


def test_serves_in_under_a_second_from_an_empty_database(fresh_shop: RunningShop) -> None:
    fresh_shop.server.command = [sys.executable, "-m", "shop"]
    seconds = fresh_shop.server.start()
    assert fresh_shop.get("/healthz").status_code == 200
    assert seconds < 2, "usually 0.6 s; twice the goal on a busy machine"
    assert fresh_shop.server.process is not None
    assert psutil.Process(fresh_shop.server.process.pid).memory_info().rss < 100e6


def test_stops_at_once_with_every_load_held(fresh_shop: RunningShop, postgres: Postgres, cache: Cache, database_url: str) -> None:
    fresh_shop.server.environment["SHOP_PUBLIC_URL"] = fresh_shop.url
    fresh_shop.server.start()
    for path, body in (
        ("/load/database/blocking", {"connections": 40}),
        ("/load/cache/fill", {"percent": 80}),
        ("/load/nginx/hold", {"connections": 60}),
    ):
        assert fresh_shop.request("POST", path, body).status_code == 200
    assert fresh_shop.server.stop() < 2, "usually 0.7 s"
    database = database_url.rsplit("/", 1)[1]
    assert (database,) not in postgres.query("SELECT datname FROM pg_stat_activity")
    with cache.client() as client:
        assert list(client.scan_iter("page:*")) == []


def test_stops_while_the_database_hangs(fresh_shop: RunningShop, postgres: Postgres) -> None:
    fresh_shop.server.start()
    assert fresh_shop.request("POST", "/load/database/blocking", {"connections": 10}).json()["held"] == 10
    postgres.server.freeze()
    try:
        assert fresh_shop.get("/products").status_code == 503
        assert fresh_shop.server.stop() < 2, "usually 0.9 s"
    finally:
        postgres.server.thaw()


def test_two_shops_that_start_together_seed_once(
    fresh_shop: RunningShop, client: httpx.Client, cache: Cache, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_shop(client, tmp_path_factory.mktemp("other"), database_url, cache.url)
    other.server.launch()
    try:
        fresh_shop.server.start()
        wait_until(other.server.ready, what="the other shop ready")
        assert fresh_shop.get("/healthz").status_code == 200
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (400,)
    finally:
        other.server.stop()
    assert other.log() == []


def test_a_bad_setting_ends_it_with_one_line() -> None:
    run = subprocess.run([sys.executable, "-m", "shop"], cwd=SAMPLE_APP, env={}, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("shop: SHOP_DATABASE_URL is not set: set it to postgresql://")
    assert run.stderr.count("\n") == 1
