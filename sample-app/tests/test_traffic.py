"""The traffic generator against a real shop behind a real Nginx."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from shop_servers import SAMPLE_APP, Cache, Postgres, Proxy, Server, answers, free_port, wait_until

from shop.settings import SettingsError
from shop.traffic import read_traffic_settings

Stats = Callable[..., dict[str, Any]]


@pytest.fixture
def traffic(client: httpx.Client, tmp_path: Path) -> Iterator[Server]:
    """A generator that the test starts itself, at 50 requests a second."""
    port = free_port()
    server = Server([sys.executable, "-W", "default", "-m", "shop.traffic"], port, lambda: False, log=tmp_path / "traffic.log")
    server.environment = {"TRAFFIC_LISTEN": f"127.0.0.1:{port}", "TRAFFIC_RATE": "50"}
    server.ready = lambda: answers(client, f"http://127.0.0.1:{port}/stats")
    yield server
    assert server.stop() < 2, "usually 0.3 s"
    assert server.process is not None
    assert server.process.returncode == 0
    assert server.log.read_text() == ""


@pytest.fixture
def stats(client: httpx.Client, traffic: Server) -> Stats:
    """GET /stats of the generator."""

    def read(**bounds: float) -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"http://127.0.0.1:{traffic.port}/stats", params=bounds).json()
        return found

    return read


def test_a_healthy_shop_fails_no_request(proxied_shop: Proxy, traffic: Server, stats: Stats, cache: Cache, postgres: Postgres) -> None:
    customers = "SELECT count(*), sum(total_cents) FROM orders WHERE customer LIKE 'customer-%'"
    with cache.client() as client:
        client.hset("cart:customer-001", mapping={"3": 2})
        carts = {key: client.hgetall(key) for key in client.scan_iter("cart:customer-*")}
        orders = postgres.query(customers, "shop")
        traffic.environment["TRAFFIC_TARGET"] = proxied_shop.url
        traffic.start()
        wait_until(lambda: stats()["requests"] >= 150, what="150 requests")
        found = stats()
        assert (found["failures"], found["failure_kinds"]) == (0, {})
        assert 0 < found["latency_seconds"]["p50"] <= found["latency_seconds"]["p95"] <= found["latency_seconds"]["max"] < 2
        assert stats(since=time.time() + 60)["requests"] == 0
        assert stats(until=time.time() - 60)["requests"] == 0
        assert postgres.query("SELECT count(*) > 0 FROM orders WHERE customer LIKE 'visitor-%'", "shop") == [(True,)]
        assert any(client.scan_iter("cart:visitor-*"))
        assert {key: client.hgetall(key) for key in client.scan_iter("cart:customer-*")} == carts
        assert postgres.query(customers, "shop") == orders


def test_counts_the_failures_of_an_outage_by_kind(proxied_shop: Proxy, traffic: Server, stats: Stats, cache: Cache) -> None:
    traffic.environment["TRAFFIC_TARGET"] = proxied_shop.url
    traffic.start()
    wait_until(lambda: stats()["requests"] >= 20, what="20 requests")
    since = time.time()
    cache.server.freeze()
    wait_until(lambda: stats(since=since)["failures"] >= 5, what="failures seen")
    assert set(stats(since=since)["failure_kinds"]) <= {"status 503", "timeout"}
    cache.server.thaw()
    proxied_shop.server.stop()
    wait_until(lambda: "cannot connect" in stats(since=since)["failure_kinds"], what="refused connections seen")
    proxied_shop.server.start()
    # Requests from before the start may take their 2 s to fail, but count where they started.
    since = time.time() + 1
    wait_until(lambda: stats(since=since)["requests"] > 20, what="requests after the start")
    assert stats(since=since)["failures"] == 0


def test_starts_before_its_target(proxied_shop: Proxy, traffic: Server, stats: Stats) -> None:
    proxied_shop.server.stop()
    traffic.environment["TRAFFIC_TARGET"] = proxied_shop.url
    traffic.start()
    wait_until(lambda: stats()["failures"] > 5, what="failures seen")
    proxied_shop.server.start()
    since = time.time() + 1
    wait_until(lambda: stats(since=since)["requests"] > 20, what="requests after the start")
    assert stats(since=since)["failures"] == 0


def test_a_target_that_never_answers_does_not_pile_up_requests(client: httpx.Client, traffic: Server, stats: Stats) -> None:
    silent = free_port()
    listener = Server(
        [
            sys.executable,
            "-c",
            f"import socket, time\nwith socket.create_server(('127.0.0.1', {silent})) as s:\n s.listen(512)\n time.sleep(60)",
        ],
        silent,
        lambda: True,
    )
    listener.start()
    try:
        traffic.environment["TRAFFIC_TARGET"] = f"http://127.0.0.1:{silent}"
        traffic.start()
        wait_until(lambda: stats()["failure_kinds"].get("timeout", 0) > 20, what="timeouts")
        assert stats()["latency_seconds"]["max"] < 3
        bad = client.get(f"http://127.0.0.1:{traffic.port}/stats", params={"since": "noon"})
        assert bad.status_code == 422
        assert bad.json()["error"]["message"].startswith("since: ")
    finally:
        listener.stop()


def test_stops_by_itself_after_the_number_asked_for(proxied_shop: Proxy) -> None:
    environment = {
        **os.environ,
        "TRAFFIC_TARGET": proxied_shop.url,
        "TRAFFIC_LISTEN": "127.0.0.1:0",
        "TRAFFIC_RATE": "200",
        "TRAFFIC_REQUESTS": "60",
    }
    run = subprocess.run(
        [sys.executable, "-m", "shop.traffic"], cwd=SAMPLE_APP, env=environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert json.loads(run.stdout)["requests"] == 60
    assert json.loads(run.stdout)["failures"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRAFFIC_TARGET", ""),
        ("TRAFFIC_TARGET", "ftp://127.0.0.1"),
        ("TRAFFIC_LISTEN", "here"),
        ("TRAFFIC_RATE", "0"),
        ("TRAFFIC_RATE", "fast"),
        ("TRAFFIC_REQUESTS", "-1"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}.*set it to"):
        read_traffic_settings({"TRAFFIC_TARGET": "http://127.0.0.1:1", name: value})
