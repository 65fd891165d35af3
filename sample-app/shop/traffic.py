"""`python -m shop.traffic`: customers who arrive at a steady rate, and a record of how they fare.

The arrivals do not wait for the answers, so an outage is counted in full. Every customer uses a connection of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.errors import Invalid, ShopError, answer_error
from shop.logs import configure_logging
from shop.outcomes import Outcomes
from shop.settings import SettingsError, check_http_url, split_listen

TIMEOUT_SECONDS = 2.0
VISITORS = 200
PRODUCTS = 100
MOST_PER_SECOND = 200.0


@dataclass(frozen=True)
class TrafficSettings:
    """Where the customers go, how many come a second, after how many to stop (None: never), and where to ask about them."""

    target: str
    listen_host: str
    listen_port: int
    rate_per_second: float
    requests: int | None


def read_traffic_settings(environment: Mapping[str, str] = os.environ) -> TrafficSettings:
    """Read TRAFFIC_TARGET, TRAFFIC_LISTEN, TRAFFIC_RATE and TRAFFIC_REQUESTS. Raises SettingsError."""
    if not (target := environment.get("TRAFFIC_TARGET")):
        raise SettingsError("TRAFFIC_TARGET is not set: set it to the shop's public URL")
    host, port = split_listen("TRAFFIC_LISTEN", environment.get("TRAFFIC_LISTEN", "127.0.0.1:8001"))
    try:
        rate = float(environment.get("TRAFFIC_RATE", "20"))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_PER_SECOND:
        raise SettingsError(f"TRAFFIC_RATE: set it to requests a second, above 0 and up to {MOST_PER_SECOND:g}")
    requests = environment.get("TRAFFIC_REQUESTS") or None
    if requests is not None and (not requests.isdecimal() or int(requests) < 1):
        raise SettingsError("TRAFFIC_REQUESTS: set it to a whole number from 1, or leave it out to go on until stopped")
    return TrafficSettings(
        target=check_http_url("TRAFFIC_TARGET", target),
        listen_host=host,
        listen_port=port,
        rate_per_second=rate,
        requests=None if requests is None else int(requests),
    )


class Traffic:
    """Sends the requests: half of them for the page, the rest for products, carts and orders."""

    def __init__(self, settings: TrafficSettings, outcomes: Outcomes) -> None:
        self._settings = settings
        self._outcomes = outcomes
        # A visitor with a request under way that changes the cart is in neither.
        self._without_cart = deque(f"visitor-{number:03d}" for number in range(1, VISITORS + 1))
        self._with_cart: deque[str] = deque()

    async def run(self) -> None:
        """Send one request every 1/rate seconds, until the number asked for is sent and answered."""
        loop = asyncio.get_running_loop()
        rate, in_flight = self._settings.rate_per_second, set[asyncio.Task[None]]()
        most_in_flight = int(rate * TIMEOUT_SECONDS * 2) + 10
        numbers = itertools.count() if self._settings.requests is None else range(self._settings.requests)
        # Every customer is new to the proxy: no connection is kept.
        limits = httpx.Limits(max_keepalive_connections=0, max_connections=None)
        target = self._settings.target
        async with (
            httpx.AsyncClient(base_url=target, limits=limits, timeout=TIMEOUT_SECONDS, trust_env=False) as client,
            asyncio.TaskGroup() as visits,
        ):
            start = loop.time()
            for number in numbers:
                await asyncio.sleep(start + number / rate - loop.time())
                if len(in_flight) >= most_in_flight:
                    self._outcomes.add(time.time(), None, "not sent: too many in flight")
                    continue
                visit = visits.create_task(self._visit(client))
                in_flight.add(visit)
                visit.add_done_callback(in_flight.discard)

    async def _visit(self, client: httpx.AsyncClient) -> None:
        choice = random.random()
        if choice < 0.5:
            await self._send(client, "GET", "/")
        elif choice < 0.65:
            await self._send(client, "GET", "/products")
        elif choice < 0.75:
            await self._send(client, "GET", f"/products/{random.randint(1, PRODUCTS)}")
        elif choice < 0.83 and self._with_cart:
            await self._send(client, "GET", f"/carts/{random.choice(self._with_cart)}")
        elif (choice >= 0.92 and self._with_cart) or not self._without_cart:
            customer = self._with_cart.popleft()
            await self._send(client, "POST", "/orders", {"customer": customer})
            self._without_cart.append(customer)
        else:
            customer = self._without_cart.popleft()
            line = {"product_id": random.randint(1, PRODUCTS), "quantity": random.randint(1, 3)}
            written = await self._send(client, "PUT", f"/carts/{customer}", {"lines": [line]})
            (self._with_cart if written else self._without_cart).append(customer)

    async def _send(self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None = None) -> bool:
        """Send one request and count how it went; True when it went well."""
        started, clock = time.time(), time.perf_counter()
        failure: str | None = None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await client.request(method, path, json=body)
            if not response.is_success:
                failure = f"status {response.status_code}"
        except (TimeoutError, httpx.TimeoutException):
            failure = "timeout"
        except httpx.ConnectError:
            failure = "cannot connect"
        except httpx.RequestError:
            failure = "connection lost"
        self._outcomes.add(started, time.perf_counter() - clock, failure)
        return failure is None


def stats_app(outcomes: Outcomes) -> Starlette:
    """GET /stats?since=&until=, both in epoch seconds and optional: see Outcomes.summary."""

    async def stats(request: Request) -> JSONResponse:
        bounds: dict[str, float] = {}
        for name in ("since", "until"):
            if (text := request.query_params.get(name)) is not None:
                try:
                    bounds[name] = float(text)
                except ValueError:
                    bounds[name] = math.nan
                if not math.isfinite(bounds[name]):
                    raise Invalid(f"{name}: give epoch seconds, such as {time.time():.0f}")
        return JSONResponse(outcomes.summary(**bounds))

    return Starlette(routes=[Route("/stats", stats)], exception_handlers={ShopError: answer_error})


class TrafficServer(uvicorn.Server):
    """Answers questions about the traffic while it is sent; stops with it, and it with the server."""

    def __init__(self, config: uvicorn.Config, traffic: Traffic) -> None:
        super().__init__(config)
        self._traffic = traffic
        self._sending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._sending = asyncio.create_task(self._traffic.run())
        self._sending.add_done_callback(self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending}, timeout=0.5)
        await super().shutdown(sockets)
        if self._sending is not None and self._sending.done() and not self._sending.cancelled():
            self._sending.result()

    def _stop(self, _sending: asyncio.Task[None]) -> None:
        self.should_exit = True


def main() -> int:
    """Send the traffic; print how it went when it was a given number of requests. Return the exit status."""
    try:
        settings = read_traffic_settings()
    except SettingsError as error:
        print(f"shop.traffic: {error}", file=sys.stderr)
        return 2
    configure_logging("WARNING")
    # uvicorn stops gracefully and then raises the signal once more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    outcomes = Outcomes()
    config = uvicorn.Config(
        stats_app(outcomes),
        host=settings.listen_host,
        port=settings.listen_port,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    TrafficServer(config, Traffic(settings, outcomes)).run()
    print(json.dumps(outcomes.summary()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
