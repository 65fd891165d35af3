"""What the client knows of a running Nginx, and what it admits not to know."""

import signal
from collections.abc import AsyncIterator

import pytest

from compose.description import LabDescription
from tasks.clients.nginx import NginxClient
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test, wait_until


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    async with nginx_under_test(fresh_web) as found:
        yield found


async def limits(client: NginxClient) -> set[int | None]:
    processes = await client.require_processes()
    return {client.worker_connections(worker) for worker in processes.of("serving")}


async def test_the_limit_is_the_running_workers_not_the_files(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    assert await limits(client) == {256}
    nginx.config_path.write_text(nginx.baseline.decode().replace("256", "99"))
    assert await limits(client) == {256}, "written and not loaded"
    assert await limits(nginx.client()) == {None}, "nobody looked before the change"
    old = nginx.serving()
    nginx.master().send_signal(signal.SIGHUP)
    await wait_until(lambda: bool(nginx.serving()) and not nginx.serving() & old, "new workers alone")
    assert await limits(client) == {99}
    assert await limits(nginx.client()) == {99}


async def test_fewer_open_files_than_connections_are_the_limit(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: "worker_rlimit_nofile 100;\n" + text)
    client = nginx.client()
    usage = client.usage(await client.require_processes())
    assert usage.maximum == 100


async def test_without_a_runtime_the_pid_file_leads_to_the_master(nginx: NginxUnderTest) -> None:
    client = nginx.client(runtime=None)
    processes = await client.require_processes()
    assert processes.master[0] == nginx.master().pid
    await client.load_config(processes)
    assert nginx.serving().isdisjoint(worker.pid for worker in processes.workers)


@pytest.mark.parametrize("text", ["", "pid relative.pid;", 'pid "/no/such/file";', "pid {"])
async def test_without_a_usable_pid_file_nothing_is_found(nginx: NginxUnderTest, text: str) -> None:
    nginx.config_path.write_text(text)
    assert await nginx.client(runtime=None).processes() is None
    assert await nginx.client(runtime=None, config_path=None).processes() is None


async def test_a_restarted_server_is_found_again(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    before = await client.require_processes()
    await nginx.runtime.restart()
    after = await client.require_processes()
    assert before.master != after.master
    assert after.master[0] == nginx.master().pid
    await nginx.runtime.stop()
    assert await client.processes() is None


async def test_another_file_than_the_loaded_one_is_not_edited(nginx: NginxUnderTest) -> None:
    other = nginx.config_path.with_name("other.conf")
    other.write_bytes(nginx.baseline)
    try:
        client = nginx.client(config_path=str(other))
        await client.processes()
        with pytest.raises(NotApplicable, match=r"config_path is .*other\.conf, but the running Nginx loads .*nginx\.conf"):
            client.config_file()
    finally:
        other.unlink()
    with pytest.raises(NotApplicable, match="names no config_path"):
        nginx.client(config_path=None).config_file()


async def test_a_binary_that_is_unknown_or_gone_is_an_error(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    with pytest.raises(NotApplicable, match="its binary is not known"):
        await client.check_config()
    await client.processes()
    assert client.invocation is not None
    client.invocation = type(client.invocation)("/no/such/nginx", "/", None, None, None)
    with pytest.raises(ToolFailed, match="/no/such/nginx can't be run: No such file"):
        await client.check_config()


async def test_a_runtime_that_is_gone_is_unreachable(nginx: NginxUnderTest) -> None:
    client = nginx.client(runtime={"control": str(nginx.config_path.with_name("no.sock")), "service": "web"})
    with pytest.raises(Unreachable):
        await client.processes()
