"""The HTTP probe against real servers, and its judgement as a pure function."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.schema import Kind, Resource, Thresholds
from compose.description import LabDescription
from tasks.clients.runtime import SupervisedProcess
from tasks.clients.web import WebClient
from tasks.core.errors import ProbeBroken
from tasks.core.models import Health, Reading
from tasks.probes.web import judge, measure


def resource_at(address: str, **thresholds: float) -> Resource:
    return Resource(name="shop", kind=Kind.HTTP, address=address, thresholds=Thresholds(**thresholds))


def symptoms(values: dict[str, Any], **thresholds: float) -> dict[str, Health]:
    return {finding.symptom: finding.health for finding in judge(Reading(values=values), resource_at("http://shop/", **thresholds))}


async def measured(address: str) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        resource = resource_at(address)
        return dict((await measure(WebClient(http, resource), resource)).values)


@asynccontextmanager
async def answering(reply: bytes | None) -> AsyncIterator[str]:
    """A server that sends those bytes to every request; None: nothing, until the test ends."""
    is_over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        if reply is None:
            await is_over.wait()
        else:
            writer.write(reply)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/healthz"
        is_over.set()


def response(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


async def test_a_page_that_answers_is_healthy() -> None:
    async with answering(response(200, "hello")) as address:
        values = await measured(address)

    assert values["answers"] == "yes"
    assert values["status_code"] == 200
    assert 0 < values["latency_seconds"] < 1
    assert values["dependencies"] == {}
    assert symptoms(values) == {}


async def test_a_failing_dependency_is_named() -> None:
    body = json.dumps({"dependencies": {"database": {"ok": True}, "cache": {"ok": False, "error": "refused"}, "mail": False, "odd": 7}})
    async with answering(response(503, body)) as address:
        values = await measured(address)

    assert values["dependencies"] == {"database": "ok", "cache": "refused", "mail": "failing"}
    assert values["failing_dependencies"] == ["cache", "mail"]
    (finding,) = judge(Reading(values=values), resource_at(address))
    assert (finding.symptom, finding.health) == ("page_failing", Health.FAILED)
    assert finding.summary == "the page answers 503: its cache is failing (refused), mail is failing (failing)"


@pytest.mark.parametrize("body", ["no JSON", "[1]", '{"dependencies": "all"}', '{"dependencies": {"a": null}}', "\x00" * 10])
async def test_any_body_is_read(body: str) -> None:
    async with answering(response(500, body)) as address:
        values = await measured(address)

    assert values["failing_dependencies"] == []
    assert symptoms(values) == {"page_failing": Health.FAILED}


async def test_an_endless_body_is_cut_short() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5_000_000) as address:
        started = time.monotonic()
        assert symptoms(await measured(address)) == {}

    assert time.monotonic() - started < 1.5


async def test_a_page_that_says_404_is_degraded() -> None:
    async with answering(response(404, "")) as address:
        assert symptoms(await measured(address)) == {"page_failing": Health.DEGRADED}


@pytest.mark.parametrize("reply", [b"", b"220 mail.example SMTP\r\n"])
async def test_a_server_that_breaks_off_or_speaks_otherwise_fails_its_page(reply: bytes) -> None:
    async with answering(reply) as address:
        values = await measured(address)

    assert values["answers"] == "yes"
    assert symptoms(values) == {"page_failing": Health.FAILED}


async def test_a_tls_failure_is_not_a_server_that_is_down() -> None:
    async with answering(response(200, "")) as address:
        values = await measured(address.replace("http://", "https://"))

    assert values["error"].startswith("TLS")
    assert symptoms(values) == {"page_failing": Health.FAILED}


async def test_a_silent_server_is_unresponsive_at_the_deadline() -> None:
    async with answering(None) as address:
        started = time.monotonic()
        values = await measured(address)

    assert 1.4 < time.monotonic() - started < 2
    assert symptoms(values) == {"unresponsive": Health.FAILED}


async def test_nothing_listening_is_down() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        values = await measured(f"http://127.0.0.1:{reserved.getsockname()[1]}/")

    assert symptoms(values) == {"down": Health.FAILED}


async def test_a_name_that_does_not_resolve_is_a_broken_probe() -> None:
    with pytest.raises(ProbeBroken, match="does not resolve"):
        await measured("http://nowhere.invalid/")


@pytest.fixture(scope="module")
def shop(start_partial_lab: Callable[..., AbstractContextManager[LabDescription]]) -> Iterator[LabDescription]:
    with start_partial_lab("database", "cache", "app") as running:
        yield running


async def test_the_sample_shop_is_healthy_and_names_the_cache_when_that_is_stopped(shop: LabDescription) -> None:
    address, cache = f"{shop.app.url}healthz", SupervisedProcess(str(shop.control), "cache")

    well = await measured(address)
    await cache.stop()
    try:
        unwell = await measured(address)
    finally:
        await cache.start()

    assert symptoms(well) == {}
    assert well["dependencies"] == {"database": "ok", "cache": "ok"}
    assert symptoms(unwell) == {"page_failing": Health.FAILED}
    assert unwell["failing_dependencies"] == ["cache"]


ODD = (
    st.sampled_from([None, True, False, 0, 200, 404, 503, 10**30, "", "yes", "refused", ["a"], [1], {"a": "ok"}])
    | st.floats()
    | st.text(max_size=5)
)
NAMES = ("answers", "status_code", "error", "latency_seconds", "dependencies", "failing_dependencies")


@given(st.dictionaries(st.sampled_from(NAMES), ODD))
def test_judging_never_raises_whatever_is_missing_or_odd(values: dict[str, Any]) -> None:
    assert all(health.is_breach for health in symptoms(values).values())


@given(st.integers(100, 599), st.integers(100, 599))
def test_a_higher_status_is_never_healthier(one: int, other: int) -> None:
    order = [None, Health.DEGRADED, Health.FAILED]
    lower, higher = (symptoms({"answers": "yes", "status_code": status}).get("page_failing") for status in sorted((one, other)))

    assert order.index(lower) <= order.index(higher)


@given(st.floats(0, 10), st.floats(0.1, 10))
def test_slow_begins_at_the_threshold(latency: float, threshold: float) -> None:
    values = {"answers": "yes", "status_code": 200, "latency_seconds": latency}

    assert ("slow" in symptoms(values, latency_seconds=threshold)) == (latency >= threshold)
