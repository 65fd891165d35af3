"""The Nginx probe against a real Nginx, with upstreams of the test's own behind it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from blocks.schema import Resource, Thresholds
from compose.description import LabDescription
from tasks.clients.nginx import NginxClient
from tasks.core.errors import ProbeBroken
from tasks.core.models import Health, Reading
from tasks.core.nginx_judgement import judge
from tasks.probes.nginx import measure
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test, wait_until

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
COUNTS = ("connections_used", "connections_max", "connections_percent", "busiest_worker_percent", "worker_connections", "worker_processes")


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    async with nginx_under_test(fresh_web) as found:
        yield found


@asynccontextmanager
async def upstream(nginx: NginxUnderTest, answer: Answer) -> AsyncIterator[None]:
    """Nginx with a server of the test's own behind its page; each request there is answered by `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # Nginx gave up
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await nginx.configure(lambda text: proxied(text, port))
        yield


def with_location(text: str, body: str) -> str:
    """A page of its own, for the lab's supervisor waits for `/` to answer."""
    return text.replace("location / {", f"location = /page {{\n{body}\n}}\nlocation / {{")


def proxied(text: str, port: int) -> str:
    return with_location(text, f"proxy_pass http://127.0.0.1:{port};")


def at_page(nginx: NginxUnderTest, **fields: Any) -> NginxClient:
    return nginx.client(address=f"{nginx.lab.web.url}page", **fields)


def answering(status: int, body: bytes = b"hello") -> Answer:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()

    return answer


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def observed(client: NginxClient) -> tuple[Reading, dict[str, Health]]:
    reading = await measure(client, client.resource)
    return reading, symptoms(reading, client.resource)


def symptoms(reading: Reading, resource: Resource) -> dict[str, Health]:
    return {finding.symptom: finding.health for finding in judge(reading, resource)}


async def test_a_healthy_server(nginx: NginxUnderTest) -> None:
    reading, found = await observed(nginx.client())
    assert found == {}
    values = reading.values
    assert (values["answers"], values["page_ok"], values["page_status"]) == ("yes", True, 200)
    assert (values["connections_max"], values["worker_processes"], values["draining_workers"]) == (256, 1, 0)
    assert float(str(values["page_seconds"])) < 1


async def test_both_sides_of_a_proxied_request_are_counted(nginx: NginxUnderTest) -> None:
    async with upstream(nginx, hang):
        await nginx.hold(40, "/page")
        client = at_page(nginx, thresholds=Thresholds(latency_seconds=0.1))
        reading, _ = await observed(client)
        assert nginx.established() >= 40
        assert reading.values["connections_used"] == nginx.established()
        assert int(str(reading.values["connections_used"])) % 2 == 0, "each has a side to the visitor and one to the upstream"


async def test_the_limit_is_that_of_all_workers_and_the_fullest_is_told(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: text.replace("worker_processes 1;", "worker_processes 2;").replace("256", "64"))
    await nginx.hold(48)
    shares = [100 * nginx.established({pid}) / 64 for pid in nginx.serving()]
    reading, found = await observed(nginx.client(thresholds=Thresholds(connections_percent=max(shares) - 0.1)))
    assert reading.values["connections_max"] == 128
    assert reading.values["connections_percent"] == 37.5
    assert reading.values["busiest_worker_percent"] == round(max(shares), 1)
    assert found == {"connections_high": Health.DEGRADED}


async def test_over_80_percent_is_degraded_while_the_page_still_comes(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    await nginx.hold(200)
    assert (await observed(client))[1] == {}
    await nginx.hold(10)
    reading, found = await observed(client)
    assert found == {"connections_high": Health.DEGRADED}
    assert reading.values["connections_used"] == nginx.established() == 210


async def test_a_full_server_fails_the_page(nginx: NginxUnderTest) -> None:
    await nginx.hold(253)
    reading, found = await observed(nginx.client())
    assert found == {"page_failing": Health.FAILED, "connections_high": Health.DEGRADED}
    assert (reading.values["page_ok"], reading.values["page_error"]) == (False, "broken off")


async def test_the_last_slot_gives_a_500_of_nginx_itself(nginx: NginxUnderTest) -> None:
    """A slot for the visitor, and none for the upstream."""
    async with upstream(nginx, answering(200)):
        await nginx.hold(252)
        reading, found = await observed(at_page(nginx))
    assert found == {"page_failing": Health.FAILED, "connections_high": Health.DEGRADED}
    assert (reading.values["page_status"], reading.values["page_from"]) == (500, "nginx")


@pytest.mark.parametrize(("status", "body"), [(500, b"a defect of the shop"), (404, b"no such product"), (503, b"closed")])
async def test_an_error_passed_on_from_behind_is_not_nginxs(nginx: NginxUnderTest, status: int, body: bytes) -> None:
    async with upstream(nginx, answering(status, body)):
        reading, found = await observed(at_page(nginx))
    assert found == {"upstream_failing": Health.FAILED}
    assert (reading.values["page_status"], reading.values["page_from"]) == (status, "behind")


async def test_an_error_of_nginxs_own_is(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: with_location(text, "deny all;"))
    reading, found = await observed(at_page(nginx))
    assert found == {"page_forbidden": Health.FAILED}
    assert (reading.values["page_status"], reading.values["page_from"]) == (403, "nginx")


async def test_an_upstream_that_is_down_is_not_nginxs(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: proxied(text, 9))
    reading, found = await observed(at_page(nginx))
    assert found == {"upstream_unreachable": Health.FAILED}
    assert reading.values["page_status"] == 502


async def test_an_upstream_that_hangs_is_not_nginxs(nginx: NginxUnderTest) -> None:
    async with upstream(nginx, hang):
        started = time.monotonic()
        reading, found = await observed(at_page(nginx, thresholds=Thresholds(latency_seconds=0.1)))
        assert time.monotonic() - started < 3
    assert found == {"upstream_timeout": Health.FAILED}
    assert (reading.values["answers"], reading.values["page_error"], reading.values["page_status"]) == ("yes", "timeout", None)


async def test_a_slow_page_is_degraded(nginx: NginxUnderTest) -> None:
    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await answering(200)(reader, writer)

    async with upstream(nginx, answer_late):
        reading, found = await observed(at_page(nginx, thresholds=Thresholds(latency_seconds=0.2)))
    assert found == {"slow": Health.DEGRADED}
    assert float(str(reading.values["page_seconds"])) >= 0.3


async def test_a_stopped_worker_answers_nothing(nginx: NginxUnderTest) -> None:
    client = nginx.client(thresholds=Thresholds(latency_seconds=0.1))
    await observed(client)
    [worker] = nginx.serving()
    nginx.freeze(worker)
    started = time.monotonic()
    reading, found = await observed(client)
    assert time.monotonic() - started < 3
    assert found == {"unresponsive": Health.FAILED}
    assert (reading.values["answers"], reading.values["worker_processes"], reading.values["stopped_workers"]) == ("timeout", 0, 1)


async def test_a_stopped_server_is_down(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    await observed(client)
    await nginx.runtime.stop()
    reading, found = await observed(client)
    assert found == {"down": Health.FAILED}
    assert reading.values["answers"] == "refused"
    assert {reading.values[name] for name in COUNTS} == {None}


async def test_draining_workers_do_not_count(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    await nginx.hold(230)
    old = nginx.serving()
    nginx.master().send_signal(signal.SIGHUP)
    await wait_until(lambda: bool(nginx.serving()) and not nginx.serving() & old, "new workers alone")
    reading, found = await observed(client)
    assert found == {}
    assert (reading.values["connections_used"], reading.values["draining_workers"]) == (0, 1)
    assert nginx.established(old) == 230


def forget_what_served_well(nginx: NginxUnderTest) -> None:
    for copy in nginx.config_path.parent.glob(f".{nginx.config_path.name}.*"):
        copy.unlink()


async def test_the_limit_is_the_running_one_when_the_file_was_only_edited(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    forget_what_served_well(nginx)
    await observed(client)
    nginx.config_path.write_text(nginx.baseline.decode().replace("256", "9999"))
    await nginx.hold(210)
    reading, found = await observed(client)
    assert reading.values["connections_max"] == 256
    assert found == {"connections_high": Health.DEGRADED}
    newcomer, found = await observed(nginx.client())
    assert (newcomer.values["connections_used"], newcomer.values["connections_max"]) == (210, 256), "by the copy of what served well"
    assert found == {"connections_high": Health.DEGRADED}
    forget_what_served_well(nginx)
    newcomer, found = await observed(nginx.client())
    assert (newcomer.values["connections_used"], newcomer.values["connections_max"]) == (210, None)
    assert found == {}, "an unknown limit is no finding"


async def test_without_access_to_the_processes_only_the_page_is_judged(nginx: NginxUnderTest) -> None:
    unreachable = {"control": str(nginx.config_path.with_name("no.sock")), "service": "web"}
    for client in (nginx.client(runtime=None, config_path=None), nginx.client(runtime=unreachable)):
        reading, found = await observed(client)
        assert found == {}
        assert reading.values["page_ok"] is True
        assert {reading.values[name] for name in COUNTS} == {None}


async def test_each_page_comes_over_a_new_connection_and_askers_at_once_share_it(nginx: NginxUnderTest) -> None:
    served = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await answering(200)(reader, writer)

    async with upstream(nginx, count):
        client = at_page(nginx)
        for _ in range(3):
            await measure(client, client.resource)
        assert served == 3
        await asyncio.gather(*(measure(client, client.resource) for _ in range(300)))
        assert served == 3 + 2


async def test_a_healthy_probe_is_quick_with_many_connections(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: text.replace("256", "1024"))
    await nginx.hold(256)
    client = nginx.client()
    await measure(client, client.resource)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        reading = await measure(client, client.resource)
        seconds.append(time.perf_counter() - started)
        assert reading.values["connections_used"] == 256
    assert min(seconds) < 0.03, "10 ms on an idle machine"


@pytest.mark.parametrize("address", ["http://no-such-host.invalid/", "http://[::1/"])
async def test_an_address_that_leads_nowhere_breaks_the_probe(nginx: NginxUnderTest, address: str) -> None:
    client = nginx.client(address=address)
    with pytest.raises(ProbeBroken, match="web: the "):
        await measure(client, client.resource)


async def test_a_server_without_tls_fails_a_page_that_wants_it(nginx: NginxUnderTest) -> None:
    reading, found = await observed(nginx.client(address=nginx.lab.web.url.replace("http:", "https:")))
    assert found == {"page_failing": Health.FAILED}
    assert (reading.values["answers"], reading.values["page_error"]) == ("yes", "tls")
