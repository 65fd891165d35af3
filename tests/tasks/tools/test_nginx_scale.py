"""nginx_scale_connections on a real Nginx: the edit, its test, its undo, and what is left by whatever goes wrong in between."""

import asyncio
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks.schema import Limits
from compose.description import LabDescription
from tasks.clients import nginx as client_module
from tasks.clients.nginx_processes import read_open_files
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.core.nginx_config import EVENTS, read_number
from tasks.tools.nginx import ScaleConnections, nginx_scale_connections
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test, wait_until


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    async with nginx_under_test(fresh_web) as found:
        yield found


def limit_in_file(nginx: NginxUnderTest) -> int | None:
    return read_number(nginx.config_path.read_text(), "worker_connections", EVENTS)


async def test_scale_relieves_a_full_server_without_cutting_a_request_and_its_undo_restores_the_file(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    client.usage(await client.require_processes())
    nginx.config_path.chmod(0o640)
    held = await nginx.hold(252)
    old = nginx.serving()
    change = await nginx_scale_connections(client, ScaleConnections(worker_connections=1024))
    assert limit_in_file(nginx) == 1024
    assert nginx.config_path.read_bytes() == nginx.baseline.replace(b"worker_connections 256", b"worker_connections 1024")
    assert stat.S_IMODE(nginx.config_path.stat().st_mode) == 0o640
    assert nginx.serving().isdisjoint(old)
    assert (await nginx.page()).status_code == 200
    assert nginx.established(old) >= 245
    assert sum(reader.at_eof() for reader, _ in held) <= 5
    await nginx.hold(300)
    assert nginx.established() >= 300, "more than the old limit"
    assert (change.before["worker_connections"], change.after["worker_connections"]) == (256, 1024)
    assert change.undo == {"worker_connections": 256}
    await nginx_scale_connections(client, ScaleConnections.model_validate(change.undo))
    assert nginx.config_path.read_bytes() == nginx.baseline
    assert nginx.drafts() == []


async def test_scale_to_what_is_in_force_changes_nothing(nginx: NginxUnderTest) -> None:
    workers, version = nginx.serving(), nginx.config_path.stat()
    change = await nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=256))
    assert change.before == change.after
    assert change.undo is None
    assert (nginx.serving(), nginx.config_path.stat()) == (workers, version)


async def test_scale_loads_what_was_written_and_not_loaded(nginx: NginxUnderTest) -> None:
    """As a crash leaves it between the replacement and the signal."""
    client = nginx.client()
    client.usage(await client.require_processes())
    old = nginx.serving()
    nginx.config_path.write_bytes(nginx.baseline.replace(b"256", b"512"))
    change = await nginx_scale_connections(client, ScaleConnections(worker_connections=512))
    assert nginx.serving().isdisjoint(old)
    assert (change.before["worker_connections"], change.after["worker_connections"]) == (256, 512)
    assert change.undo == {"worker_connections": 256}


async def test_scale_stays_within_the_inventorys_limit(nginx: NginxUnderTest) -> None:
    client = nginx.client(limits=Limits(connections=300))
    with pytest.raises(NotApplicable, match=r"worker_connections 301 is above limits\.connections, which is 300"):
        await nginx_scale_connections(client, ScaleConnections(worker_connections=301))
    assert nginx.config_path.read_bytes() == nginx.baseline
    await nginx_scale_connections(client, ScaleConnections(worker_connections=300))
    assert limit_in_file(nginx) == 300


@pytest.mark.parametrize("value", [0, -1, 1_000_001, "512", 3.5])
def test_scale_takes_only_sensible_numbers(value: object) -> None:
    with pytest.raises(ValidationError, match="worker_connections"):
        ScaleConnections.model_validate({"worker_connections": value})


async def test_scale_raises_the_open_files_where_they_would_be_too_few(nginx: NginxUnderTest) -> None:
    before = await nginx.configure(lambda text: "worker_rlimit_nofile 300;\n" + text)
    client = nginx.client()
    change = await nginx_scale_connections(client, ScaleConnections(worker_connections=600))
    [worker] = nginx.serving()
    assert read_open_files(worker) == (1264, 1264)
    assert limit_in_file(nginx) == 600
    assert change.undo == {"worker_connections": 256, "open_files": 300}
    await nginx_scale_connections(client, ScaleConnections.model_validate(change.undo))
    assert nginx.config_path.read_bytes() == before


async def test_scale_takes_an_added_open_files_limit_away_again(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    change = await nginx_scale_connections(client, ScaleConnections(worker_connections=600, open_files=1500))
    [worker] = nginx.serving()
    assert read_open_files(worker) == (1500, 1500)
    assert change.undo == {"worker_connections": 256, "open_files": 0}
    await nginx_scale_connections(client, ScaleConnections.model_validate(change.undo))
    assert nginx.config_path.read_bytes() == nginx.baseline


async def test_scale_beyond_the_hard_limit_of_open_files_is_refused(nginx: NginxUnderTest) -> None:
    limits = read_open_files(nginx.master().pid)
    assert limits is not None
    if limits[1] >= 1_000_000:
        pytest.skip("this machine lets a process open more files than the tool offers connections")
    with pytest.raises(NotApplicable, match="raise its hard limit"):
        await nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=limits[1]))
    assert nginx.config_path.read_bytes() == nginx.baseline


async def test_scale_puts_the_old_file_back_when_no_new_workers_come(nginx: NginxUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "NEW_WORKERS_SECONDS", 0.5)
    master, old = nginx.master(), nginx.serving()
    master.suspend()  # it takes the signal only later
    try:
        with pytest.raises(ToolFailed, match="no new workers"):
            await nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=512))
        assert nginx.config_path.read_bytes() == nginx.baseline
        assert nginx.drafts() == []
    finally:
        master.resume()
    await wait_until(lambda: bool(nginx.serving()) and nginx.serving().isdisjoint(old), "the late reload")
    state = (await nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=256))).after
    assert state["worker_connections"] == 256


async def test_scale_puts_the_old_file_back_when_the_signal_can_not_be_sent(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    await client.processes()
    client.runtime = nginx.client(runtime={"control": str(nginx.config_path.with_name("no.sock")), "service": "web"}).runtime
    with pytest.raises(Unreachable):
        await nginx_scale_connections(client, ScaleConnections(worker_connections=512))
    assert nginx.config_path.read_bytes() == nginx.baseline


async def test_two_at_once_both_come_through_one_after_the_other(nginx: NginxUnderTest) -> None:
    wanted = (400, 800)
    changes = await asyncio.gather(
        *(nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=value)) for value in wanted)
    )
    assert {change.after["worker_connections"] for change in changes} == set(wanted)
    last = max(changes, key=lambda change: change.before["worker_connections"] != 256)
    assert last.before["worker_connections"] in wanted, "the second saw what the first had done"
    assert nginx.config_path.read_bytes() == nginx.baseline.replace(b"256", str(last.after["worker_connections"]).encode())
    assert nginx.drafts() == []


async def test_a_file_that_is_not_loaded_is_not_edited(nginx: NginxUnderTest) -> None:
    other = nginx.config_path.with_name("other.conf")
    other.write_bytes(nginx.baseline)
    try:
        with pytest.raises(NotApplicable, match="correct the inventory"):
            await nginx_scale_connections(nginx.client(config_path=str(other)), ScaleConnections(worker_connections=512))
        assert other.read_bytes() == nginx.config_path.read_bytes() == nginx.baseline
    finally:
        other.unlink()
    await nginx_scale_connections(nginx.client(config_path=None), ScaleConnections(worker_connections=512))
    assert limit_in_file(nginx) == 512, "the running master names its file"


async def test_a_linked_file_stays_a_link(nginx: NginxUnderTest) -> None:
    link = nginx.config_path.with_name("link.conf")
    link.symlink_to(nginx.config_path)
    try:
        await nginx_scale_connections(nginx.client(config_path=str(link)), ScaleConnections(worker_connections=512))
        assert link.is_symlink()
        assert limit_in_file(nginx) == 512
    finally:
        link.unlink()


SCALE_FOREVER = """
import asyncio, sys
import httpx
from blocks.schema import Kind, Resource
from tasks.clients.nginx import NginxClient
from tasks.tools.nginx import ScaleConnections, nginx_scale_connections

async def main(address, path):
    client = NginxClient(httpx.AsyncClient(), Resource(name="web", kind=Kind.NGINX, address=address, config_path=path))
    print("ready", flush=True)
    while True:
        for value in (300, 600):
            await nginx_scale_connections(client, ScaleConnections(worker_connections=value))
            print(value, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.012, 0.05])
async def test_a_kill_at_any_moment_leaves_a_whole_file_and_no_lock(nginx: NginxUnderTest, seconds: float) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCALE_FOREVER,
        nginx.lab.web.url,
        str(nginx.config_path),
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while await process.stdout.readline() != b"600\n":
                pass
        await asyncio.sleep(seconds)  # where in the next change it dies
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    assert nginx.config_path.read_bytes() in {nginx.baseline.replace(b"256", value) for value in (b"300", b"600")}
    await nginx_scale_connections(nginx.client(), ScaleConnections(worker_connections=256))
    assert nginx.config_path.read_bytes() == nginx.baseline
    assert nginx.drafts() == []
