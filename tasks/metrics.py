"""The records as metrics in Prometheus's format: `python -m tasks.metrics --url sqlite:///.evenkeel/lab/records.db`.

Everything is read from the records with each scrape, so figures outlive every run, and the endpoint may be started and ended at will.
"""

import argparse
import asyncio
import contextlib
import hmac
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tasks.core.errors import EvenkeelError
from tasks.core.models import Health
from tasks.records.database import RecordsUnavailable
from tasks.records.figures import BUCKET_SECONDS, Figures
from tasks.records.repository import Records

LISTEN = "127.0.0.1:9464"
SCRAPE_SECONDS = 8.0
"""Prometheus gives up after 10 s by default."""
LOGGER = logging.getLogger("evenkeel.metrics")


class CannotServe(EvenkeelError):
    """The metrics can't be served as asked; the message says why."""


class Exposition(Collector):
    """Figures as Prometheus's metric families."""

    def __init__(self, figures: Figures, now: datetime) -> None:
        self._figures = figures
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Every family, one after the other."""
        yield from self._resources()
        yield from self._fixes()
        yield from self._planners()

    def _resources(self) -> Iterator[Metric]:
        health = GaugeMetricFamily(
            "evenkeel_resource_health", "1 for the health that a resource was last seen in.", None, ["inventory", "resource", "health"]
        )
        since = GaugeMetricFamily(
            "evenkeel_resource_health_since_seconds", "Unix time since when the health is what it is.", None, ["inventory", "resource"]
        )
        headline = GaugeMetricFamily(
            "evenkeel_resource_headline",
            "The one figure that stands for a resource; its unit depends on the kind.",
            None,
            ["inventory", "resource"],
        )
        for one in self._figures.watched:
            place = [one.inventory, one.resource]
            for state in Health:
                health.add_metric([*place, state.value], state is one.health)
            since.add_metric(place, one.since.timestamp())
            if one.headline is not None:
                headline.add_metric(place, one.headline)
        swept = GaugeMetricFamily(
            "evenkeel_last_sweep_seconds", "Unix time of a monitor's last sweep; 0: it has not swept.", None, ["monitor"]
        )
        for name, moment in self._figures.sweeps.items():
            swept.add_metric([name], 0 if moment is None else moment.timestamp())
        yield from (health, since, headline, swept)

    def _fixes(self) -> Iterator[Metric]:
        recorded = GaugeMetricFamily(
            "evenkeel_fixes", "Fixes on record; those that are deleted no longer count.", None, ["inventory", "resource", "verdict"]
        )
        for one in self._figures.fixes:
            recorded.add_metric([one.inventory, one.resource, "open" if one.verdict is None else one.verdict.value], one.count)
        waiting = GaugeMetricFamily("evenkeel_fixes_waiting_for_a_person", "Fixes whose plan nobody has answered yet.", None, ["inventory"])
        for inventory, count in self._figures.waiting.items():
            waiting.add_metric([inventory], count)
        healing = HistogramMetricFamily(
            "evenkeel_healing_seconds",
            "From an incident until all was measured healthy, of the fixes on record.",
            None,
            None,
            ["inventory"],
        )
        for took in self._figures.healing:
            buckets = [(f"{most:g}", float(count)) for most, count in zip(BUCKET_SECONDS, took.at_most, strict=True)]
            healing.add_metric([took.inventory], [*buckets, ("+Inf", float(took.count))], took.seconds)
        steps = GaugeMetricFamily("evenkeel_steps", "Steps on record by how they ended.", None, ["tool", "status"])
        for (tool, status), count in self._figures.steps.items():
            steps.add_metric([tool, status], count)
        yield from (recorded, waiting, healing, steps)

    def _planners(self) -> Iterator[Metric]:
        name = ["planner"]
        requests = CounterMetricFamily("evenkeel_planner_requests", "Requests to a model.", None, name)
        tokens = CounterMetricFamily("evenkeel_planner_tokens", "Tokens of a model.", None, ["planner", "direction"])
        dollars = CounterMetricFamily("evenkeel_planner_dollars", "US dollars for a model, by the prices of its settings.", None, name)
        seconds = CounterMetricFamily("evenkeel_planner_seconds", "Seconds of waiting for a model.", None, name)
        failures = GaugeMetricFamily("evenkeel_planner_failures", "Failures of a model since its last success.", None, name)
        paused = GaugeMetricFamily("evenkeel_planner_paused", "1 while a model is not asked, because it kept failing.", None, name)
        for one in self._figures.used:
            requests.add_metric([one.name], one.usage.requests)
            tokens.add_metric([one.name, "input"], one.usage.input_tokens)
            tokens.add_metric([one.name, "output"], one.usage.output_tokens)
            dollars.add_metric([one.name], one.usage.dollars)
            seconds.add_metric([one.name], one.usage.seconds)
            failures.add_metric([one.name], one.failures)
            paused.add_metric([one.name], one.open_until is not None and self._now < one.open_until)
        yield from (requests, tokens, dollars, seconds, failures, paused)


def exposition(figures: Figures, now: datetime) -> bytes:
    """The figures as text in Prometheus's format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exposition(figures, now))
    return generate_latest(registry)


def application(records: Records, token: str = "") -> Starlette:
    """GET /metrics; 401 without the token where there is one, 503 where the records can't be read."""

    async def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("send Authorization: Bearer TOKEN\n", 401, {"www-authenticate": "Bearer"})
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                figures = await records.figures()
        except (RecordsUnavailable, TimeoutError) as error:
            LOGGER.warning("not answered: %s", error or "no figures in time")
            return PlainTextResponse("the records can't be read; the log says why\n", 503)
        return Response(exposition(figures, datetime.now(UTC)), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    """A part of a process: the signals are the process's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serving(records: Records, listen: str = LISTEN, token: str = "") -> AsyncIterator[str]:
    """Serve the metrics at host:port; gives their URL. CannotServe where that can't be."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not token and not _is_loopback(host):
        raise CannotServe(f"--listen: {listen} is reached from other machines; give --token-file as well, or listen on 127.0.0.1")
    try:
        listening = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, OverflowError) as error:
        raise CannotServe(f"--listen: {listen}: {getattr(error, 'strerror', None) or error}; write host:port") from error
    with listening:
        config = uvicorn.Config(
            application(records, token), log_config=None, access_log=False, server_header=False, lifespan="off", ws="none"
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/metrics"
        finally:
            server.should_exit = True
            await task


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def run(options: argparse.Namespace) -> None:
    """Serve until the process is told to end. EvenkeelError if the records can't be opened, or the address not be listened on."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    token = "" if options.token_file is None else _token(options.token_file)
    async with await Records.open(options.url) as records, serving(records, options.listen, token) as url:
        print(f"metrics at {url}", flush=True)
        await ended.wait()


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CannotServe(f"--token-file: {path}: {error.strerror}") from error
    if not token:
        raise CannotServe(f"--token-file: {path} is empty; write a long random word into it")
    return token


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 once it is told to end; 2 with a sentence on stderr for what can't be done."""
    parser = argparse.ArgumentParser(prog="python -m tasks.metrics", description="Serve the records as metrics for Prometheus.")
    parser.add_argument("--url", help="place of the records, as of python -m tasks.records; the password is better kept in PGPASSWORD")
    parser.add_argument("--listen", default=LISTEN, help=f"host:port; default: {LISTEN}")
    parser.add_argument("--token-file", type=Path, help="file with a token that whoever reads has to send as Authorization: Bearer TOKEN")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(run(options))
    except EvenkeelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
