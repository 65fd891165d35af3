"""The lab's Nginx without the shop: requests in flight use its connections up, and more can be had with a reload."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from compose.description import LabDescription
from compose.web import obeys_modes

Call = Callable[..., httpx.Response]
WaitUntil = Callable[[Callable[[], object]], None]


Hold = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def held(lab: LabDescription, count: int) -> AsyncIterator[Hold]:
    """Requests in flight; the value holds more of them."""
    writers: list[asyncio.StreamWriter] = []

    async def hold(more: int) -> None:
        for _ in range(more):
            _, writer = await asyncio.open_connection(lab.web.host, lab.web.port)
            writer.write(b"GET /hold HTTP/1.1\r\nHost: lab\r\n\r\n")
            writers.append(writer)

    try:
        await hold(count)
        yield hold
    finally:
        for writer in writers:
            writer.transport.abort()


async def use_up(lab: LabDescription, hold: Hold) -> None:
    """Hold more until no new visitor gets in: Nginx drops connections that it has accepted and not yet read, when few are left."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(page, lab) is not None:
            await hold(8)


def page(lab: LabDescription) -> int | None:
    """Status of the page for a new visitor; None when there is no answer."""
    try:
        return httpx.get(lab.web.url, timeout=1).status_code
    except httpx.TransportError:
        return None


async def test_held_requests_use_up_the_connections(fresh_web: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    async with held(fresh_web, 250) as hold:
        await use_up(fresh_web, hold)
        (worker,) = psutil.Process(call(fresh_web, "GET", "/services/web").json()["pid"]).children()
        established = [one for one in worker.net_connections() if one.status == psutil.CONN_ESTABLISHED]
        assert 240 < len(established) <= 256

        path = fresh_web.web.config_path
        original = path.read_text(encoding="utf-8")
        path.write_text(original.replace("worker_connections 256", "worker_connections 1024"), encoding="utf-8")
        await asyncio.to_thread(call, fresh_web, "POST", "/services/web/signal", signal="SIGHUP")
        await asyncio.to_thread(wait_until, lambda: page(fresh_web) == 200)
        path.write_text(original, encoding="utf-8")
    call(fresh_web, "POST", "/services/web/restart").raise_for_status()
    assert page(fresh_web) == 200


def test_its_configuration_can_be_tested_from_anywhere(fresh_web: LabDescription, call: Call, tmp_path: Path) -> None:
    """`nginx -t` needs nothing but the file, and touches nothing outside of the lab."""
    program = psutil.Process(call(fresh_web, "GET", "/services/web").json()["pid"]).exe()
    command = (program, "-t", "-c", fresh_web.web.config_path)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=10, check=False)
    assert "test is successful" in done.stderr
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert page(fresh_web) == 200


def test_it_serves_files_and_the_page_over_tls_and_obeys_the_modes_of_files(fresh_web: LabDescription) -> None:
    authority = ssl.create_default_context(cafile=fresh_web.web.tls / "ca.crt")
    assert httpx.get(fresh_web.web.tls_url, verify=authority, timeout=5).status_code == 200
    sheet, directory = f"{fresh_web.web.url}static/shop.css", fresh_web.web.web_root / "static"
    assert httpx.get(sheet, timeout=5).status_code == 200
    directory.chmod(0)
    try:
        assert httpx.get(sheet, timeout=5).status_code == (403 if obeys_modes(fresh_web) else 200)
    finally:
        directory.chmod(0o755)


@pytest.mark.parametrize("rounds", [2])
def test_held_requests_do_not_hold_up_a_restart(fresh_web: LabDescription, call: Call, rounds: int) -> None:
    async def restart_while_held() -> None:
        async with held(fresh_web, 20), asyncio.timeout(5):
            (await asyncio.to_thread(call, fresh_web, "POST", "/services/web/restart")).raise_for_status()

    for _ in range(rounds):
        asyncio.run(restart_while_held())
        assert page(fresh_web) == 200
