"""Downloads through a real Nginx that has room for 256 connections."""

from __future__ import annotations

import time

import httpx
import psutil
from shop_servers import Proxy, RunningShop, wait_until

PATH = "/load/nginx/hold"


def _connections(proxy: Proxy) -> int:
    """Established connections of the proxy's workers, to its clients and to the shop."""
    assert proxy.server.process is not None
    workers = psutil.Process(proxy.server.process.pid).children()
    return sum(connection.status == psutil.CONN_ESTABLISHED for worker in workers for connection in worker.net_connections(kind="tcp"))


def _page_works(proxy: Proxy) -> bool:
    try:
        return proxy.shop.client.get(proxy.url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_each_request_takes_two_connections_until_the_stop(proxied_shop: Proxy) -> None:
    shop = proxied_shop.shop
    assert shop.request("POST", PATH, {"connections": 105}).json() == {"held": 105, "refused": 0, "reason": None}
    assert 210 <= _connections(proxied_shop) <= 214
    assert shop.get(PATH).json() == {"held": 105, "ended_early": 0}
    assert _page_works(proxied_shop)
    assert shop.request("DELETE", PATH).json() == {"closed": 105}
    wait_until(lambda: _connections(proxied_shop) < 4, 5, "the proxy letting go")


def test_takes_the_last_connection_so_that_the_page_fails(proxied_shop: Proxy) -> None:
    shop = proxied_shop.shop
    answer = shop.request("POST", PATH, {"connections": 300}).json()
    assert answer["held"] + answer["refused"] == 300
    assert answer["reason"]
    assert not _page_works(proxied_shop)
    assert shop.get("/healthz").status_code == 200
    shop.request("DELETE", PATH)
    wait_until(lambda: _page_works(proxied_shop), 5, "the page after the stop")


def test_requests_outlive_the_read_timeout_of_the_proxy(proxied_shop: Proxy) -> None:
    shop = proxied_shop.shop
    shop.request("POST", PATH, {"connections": 5})
    # The proxy gives up on an answer that pauses for 3 s.
    end = time.monotonic() + 3.5
    wait_until(lambda: time.monotonic() > end, 10)
    assert shop.get(PATH).json() == {"held": 5, "ended_early": 0}


def test_requests_that_the_proxy_ends_stay_ended(proxied_shop: Proxy) -> None:
    shop = proxied_shop.shop
    seen = len(shop.log())
    shop.request("POST", PATH, {"connections": 20})
    proxied_shop.server.stop()
    wait_until(lambda: shop.get(PATH).json() == {"held": 0, "ended_early": 20}, 5, "the shop noticing")
    assert [line["level"] for line in shop.log()[seen:] if line["logger"] == "shop.downloads"] == ["WARNING"]
    answer = shop.request("POST", PATH, {"connections": 5}).json()
    assert (answer["held"], answer["refused"]) == (0, 5)
    proxied_shop.server.start()
    assert _connections(proxied_shop) < 4
    assert shop.get(PATH).json()["held"] == 0


def test_a_request_lasts_as_long_as_asked(proxied_shop: Proxy) -> None:
    shop = proxied_shop.shop
    shop.request("POST", PATH, {"connections": 5, "seconds": 0.5})
    wait_until(lambda: shop.get(PATH).json() == {"held": 0, "ended_early": 0}, 3, "the requests' own end")


def test_without_a_known_proxy(fresh_shop: RunningShop) -> None:
    fresh_shop.server.start()
    answer = fresh_shop.request("POST", PATH, {"connections": 5})
    assert answer.status_code == 409
    assert "SHOP_PUBLIC_URL" in answer.json()["error"]["message"]
