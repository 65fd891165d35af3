"""A machine over SSH: one kept connection that comes back, pinned keys, bounded waits. Against a real server that is killed and frozen."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

from tasks.clients.login import Login
from tasks.clients.polling import poll
from tasks.clients.ssh import KeptSsh
from tasks.core.errors import EvenkeelError, OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tests.tasks.ssh_under_test import HOST, SHOWN, USER, SshServer, echo, said, ssh_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@asynccontextmanager
async def opened(server: SshServer, **changes: Any) -> AsyncIterator[KeptSsh]:
    async def address() -> str:
        return HOST

    chosen: dict[str, Any] = {
        "name": "vm",
        "address": address,
        "port": server.port,
        "host_keys": (server.host_key,),
        "login": server.login,
    } | changes
    ssh = KeptSsh(**chosen)
    try:
        yield ssh
    finally:
        await ssh.close()


async def test_scripts_share_one_connection_and_are_quoted_nowhere(server: SshServer) -> None:
    async with opened(server) as ssh:
        clients = await asyncio.gather(*(ssh.run(f"sleep 0.05; echo {number}; echo said >&2") for number in range(5)))
        assert clients == [f"{number}\n" for number in range(5)]
        printed = await ssh.run(f"cat <<'END'\n{SHOWN}\nEND\n")
        assert printed == f"{SHOWN}\n"
        mine = [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == server.port]
        assert len(mine) == 1
        with pytest.raises(ToolFailed, match="status 3: no such thing"):
            await ssh.run("echo starting; echo no such thing >&2; exit 3")
        with pytest.raises(OutcomeUnknown, match=r"within 0\.5 s"):
            await ssh.run("sleep 60", seconds=0.5)
        assert await ssh.run("echo still here") == "still here\n"


async def test_a_port_is_reached_through_the_machine_and_stays_the_same(server: SshServer) -> None:
    with echo() as port:
        async with opened(server) as ssh:
            local, again = await asyncio.gather(ssh.forward(HOST, port), ssh.forward(HOST, port))
            assert local == again != port
            assert await said(local) == b"hello\n"
            server.kill()
            server.start()
            # The kept connection is found to be gone, and a new one takes over both.
            assert await ssh.run("echo back") == "back\n"
            assert await ssh.forward(HOST, port) == local
            assert await said(local) == b"hello\n"
    with pytest.raises(OSError, match="Connect call failed"):
        await said(local)


async def test_a_machine_that_is_gone_is_unreachable_and_comes_back(server: SshServer) -> None:
    async with opened(server) as ssh:
        assert await ssh.run("echo 1") == "1\n"
        server.kill()
        try:
            with pytest.raises(Unreachable, match="vm: no SSH connection"):
                await ssh.run("echo 2")
            with pytest.raises(Unreachable):
                await ssh.forward(HOST, 9)
        finally:
            server.start()
        assert await ssh.run("echo 3") == "3\n"


async def test_a_frozen_machine_costs_its_deadline_and_no_more(server: SshServer) -> None:
    async with opened(server, connect_seconds=2.0, keepalive_seconds=0.3) as ssh:
        running = asyncio.create_task(ssh.run("echo begun; sleep 100", seconds=40))
        assert await ssh.run("echo 1") == "1\n"
        server.send(signal.SIGSTOP)
        try:
            with pytest.raises(Unreachable):
                await ssh.run("echo 2", seconds=0.3)
            # What was under way is lost with the connection: nobody knows how far it came.
            with pytest.raises(OutcomeUnknown):
                await running
        finally:
            server.send(signal.SIGCONT)

        async def answers() -> bool | None:
            try:
                return await ssh.run("echo 3") == "3\n"
            except EvenkeelError:
                return None

        assert await poll(answers, seconds=30)


async def test_another_host_key_is_never_accepted(server: SshServer, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    async with opened(server, host_keys=(other,)) as ssh:
        with pytest.raises(ProbeBroken, match=r"cloud\.ssh\.host_keys"):
            await ssh.run("echo 1")
        with pytest.raises(ProbeBroken, match=r"cloud\.ssh\.host_keys"):
            await ssh.forward(HOST, 9)
    async with opened(server, host_keys=(other, server.host_key)) as ssh:
        assert await ssh.run("echo 1") == "1\n"


async def test_a_wrong_login_is_named_and_its_key_is_not_shown(server: SshServer) -> None:
    stranger = Login(USER, asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
    for login, named in (
        (stranger, rf"refuses {USER} with the key of logins\.monitor"),
        (Login(USER, "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n"), r"logins\.monitor: its password is no private key"),
    ):
        async with opened(server, login=login) as ssh:
            with pytest.raises(ProbeBroken, match=named) as refused:
                await ssh.run("echo 1")
        assert "hunter2" not in str(refused.value)
        assert refused.value.__cause__ is None
    async with opened(server, host_keys=("ssh-ed25519 AAAA",)) as ssh:
        with pytest.raises(ProbeBroken, match=r"host_keys: 'ssh-ed25519 AAAA' can't be read"):
            await ssh.run("echo 1")
