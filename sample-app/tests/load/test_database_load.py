"""Report sessions: opened, told apart, closed, and never opened again."""

from __future__ import annotations

import time

from shop_servers import Postgres, RunningShop, wait_until

PATH = "/load/database/blocking"
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop-reports' AND state = 'active' AND query LIKE '%pg_sleep%'"


def _active(postgres: Postgres) -> int:
    return int(str(postgres.query(ACTIVE)[0][0]))


def test_opens_separate_sessions_that_run_and_closes_them(shop: RunningShop, postgres: Postgres) -> None:
    started = time.monotonic()
    assert shop.request("POST", PATH, {"connections": 90, "seconds": 3600}).json() == {"held": 90, "refused": 0, "reason": None}
    assert time.monotonic() - started < 3, "usually 0.5 s"
    wait_until(lambda: _active(postgres) == 90, 5, "90 queries running")
    assert shop.get(PATH).json() == {"held": 90, "ended_early": 0}
    started = time.monotonic()
    assert shop.request("DELETE", PATH).json() == {"closed": 90}
    wait_until(lambda: _active(postgres) == 0, 5, "no query running")
    assert time.monotonic() - started < 2, "usually 0.2 s"
    assert shop.get(PATH).json()["held"] == 0


def test_many_quick_stops_leave_no_query_behind(shop: RunningShop, postgres: Postgres) -> None:
    for _ in range(6):
        shop.request("POST", PATH, {"connections": 30})
        started = time.monotonic()
        assert shop.request("DELETE", PATH).json() == {"closed": 30}
        assert time.monotonic() - started < 2, "a lost cancellation is repeated"
    wait_until(lambda: _active(postgres) == 0, 5, "no query running")


def test_uses_up_the_connections_and_says_so(shop: RunningShop, postgres: Postgres) -> None:
    wait_until(lambda: shop.get("/products").status_code == 200, what="the pool connected")
    answer = shop.request("POST", PATH, {"connections": 120}).json()
    assert answer["held"] + answer["refused"] == 120
    assert "already" in answer["reason"] or "reserved" in answer["reason"]
    wait_until(lambda: _active(postgres) == answer["held"], 5, "the held queries running")
    health = shop.get("/healthz")
    assert health.status_code == 503
    assert not health.json()["dependencies"]["database"]["ok"]
    assert shop.get("/products").status_code == 200, "the pool has its connections"
    more = shop.request("POST", PATH, {"connections": 450})
    assert more.status_code == 409
    assert "DELETE" in more.json()["error"]["message"]
    shop.request("DELETE", PATH)
    wait_until(lambda: shop.get("/healthz").status_code == 200, 5, "health after the stop")


def test_sessions_that_the_server_ends_stay_ended(shop: RunningShop, postgres: Postgres) -> None:
    seen = len(shop.log())
    assert shop.request("POST", PATH, {"connections": 30}).json()["held"] == 30
    postgres.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shop-reports'")
    wait_until(lambda: shop.get(PATH).json() == {"held": 0, "ended_early": 30}, 5, "the shop noticing")
    assert _active(postgres) == 0
    lines = [line for line in shop.log()[seen:] if line["logger"] == "shop.reports"]
    assert [line["level"] for line in lines] == ["WARNING"]
    assert shop.get("/healthz").status_code == 200
    assert shop.request("POST", PATH, {"connections": 1}).json()["held"] == 1
    assert shop.get(PATH).json() == {"held": 1, "ended_early": 0}


def test_a_query_lasts_as_long_as_asked(shop: RunningShop, postgres: Postgres) -> None:
    seen = len(shop.log())
    shop.request("POST", PATH, {"connections": 3, "seconds": 0.5})
    assert _active(postgres) == 3
    wait_until(lambda: shop.get(PATH).json() == {"held": 0, "ended_early": 0}, 3, "the queries' own end")
    assert [line for line in shop.log()[seen:] if line["logger"] == "shop.reports"] == []


def test_without_a_database_all_are_refused(shop: RunningShop, postgres: Postgres) -> None:
    postgres.server.stop()
    answer = shop.request("POST", PATH, {"connections": 5}).json()
    assert (answer["held"], answer["refused"]) == (0, 5)
    assert "refused" in answer["reason"]
