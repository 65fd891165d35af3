"""`gcloud compute ssh` as the way into a machine: what it is called with, and what is made of its answers. gcloud itself is a stand-in."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tasks.clients.ssh_gcloud import GcloudSsh
from tasks.core.errors import OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tests.tasks.gcloud_under_test import StandIn
from tests.tasks.ssh_under_test import HOST, SHOWN, echo, said

WHERE = ["compute", "ssh", "shop-vm", "--project=shop", "--zone=europe-west4-a", "--tunnel-through-iap", "--quiet"]


@pytest.fixture
def gcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return stand_in


@asynccontextmanager
async def opened() -> AsyncIterator[GcloudSsh]:
    async def zone() -> str:
        return "europe-west4-a"

    ssh = GcloudSsh(name="vm", instance="shop-vm", project="shop", zone=zone)
    try:
        yield ssh
    finally:
        await ssh.close()


async def test_a_script_goes_over_stdin_through_iap(gcloud: StandIn) -> None:
    async with opened() as ssh:
        assert await ssh.run(f"cat <<'END'\n{SHOWN}\nEND\n") == f"{SHOWN}\n"
        assert gcloud.calls == [[*WHERE, "--command", "bash -s"]]
        with pytest.raises(ToolFailed, match="status 3: no such thing"):
            await ssh.run("echo no such thing >&2; exit 3")
        with pytest.raises(OutcomeUnknown, match="within 1 s"):
            await ssh.run("sleep 60", seconds=1)
        gcloud.refuse(True)
        with pytest.raises(OutcomeUnknown, match=r"got or kept no connection: ERROR: \(gcloud.compute.ssh\)"):
            await ssh.run("echo 1")


async def test_a_port_is_forwarded_by_one_process_that_is_replaced_when_it_ends(gcloud: StandIn) -> None:
    with echo() as port:
        async with opened() as ssh:
            local, again = await asyncio.gather(ssh.forward(HOST, port), ssh.forward(HOST, port))
            assert local == again
            assert await said(local) == b"hello\n"
            wanted = [*WHERE, "--", "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:{HOST}:{port}"]
            assert gcloud.calls == [wanted]
            await ssh.close()
            gcloud.refuse(True)
            with pytest.raises(Unreachable, match="forwards no port: ERROR"):
                await ssh.forward(HOST, port)
            gcloud.refuse(False)
            assert await said(await ssh.forward(HOST, port)) == b"hello\n"
            last = int(gcloud.calls[-1][-1].split(":")[1])
        with pytest.raises(OSError, match="Connect call failed"):
            await said(last)


async def test_without_gcloud_the_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with opened() as ssh:
        with pytest.raises(ProbeBroken, match=r"cloud\.ssh\.by is gcloud"):
            await ssh.run("echo 1")
