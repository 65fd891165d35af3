"""A service in a real container through the runtime that tools receive."""

from pathlib import Path

import pytest

from blocks.runtimes import ContainerRuntime
from tasks.clients.container_engine import ContainerEngine
from tasks.clients.runtime import ContainerProcess, Inside, open_runtime
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tests.tasks.engine import SOCKET, Line, container, docker, inspected, until

pytestmark = pytest.mark.docker
LOCAL = ContainerEngine(f"unix://{SOCKET}")
TALKATIVE = ("sh", "-c", "trap 'echo told' HUP; echo ready; echo trouble >&2; while :; do sleep 0.1; done")


def state(name: str) -> str:
    return str(inspected(name)["State"]["Status"])


async def test_a_container_is_started_stopped_restarted_told_and_read() -> None:
    with container(command=TALKATIVE) as name:
        process = open_runtime(ContainerRuntime(container=name))
        assert isinstance(process, ContainerProcess)
        assert isinstance(process, Inside)
        first = await process.status()
        assert (first.state, first.pid) == ("running", inspected(name)["State"]["Pid"])
        await until(lambda: process.log(10))
        await process.signal("SIGHUP")
        await until(lambda: docker("logs", name).count("told"))
        assert set(await process.log(10)) == {"ready", "trouble", "told"}
        code, output = await process.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (code, sorted(output.split())) == (3, ["err", "out"])
        with pytest.raises(ToolFailed, match="can't be started"):
            await process.run(["no-such-program"])
        with pytest.raises(ToolFailed, match=r"did not end within 0\.5 s"):
            await process.run(["sleep", "5"], timeout_seconds=0.5)
        with pytest.raises(NotApplicable, match="it runs already"):
            await process.start()
        second = await process.restart()
        assert second.started_at is not None
        assert first.started_at is not None
        assert second.started_at > first.started_at
        assert ((await process.stop()).state, state(name)) == ("exited", "exited")
        for refused in (process.stop(), process.signal("SIGHUP")):
            with pytest.raises(NotApplicable, match="it is exited"):
                await refused
        with pytest.raises(NotApplicable, match="not running"):
            await process.run(["true"])
        assert ((await process.start()).state, state(name)) == ("running", "running")


async def test_what_is_paused_goes_on_and_is_never_killed() -> None:
    with container() as name:
        process, pid = ContainerProcess(LOCAL, name), inspected(name)["State"]["Pid"]
        docker("pause", name)
        assert (await process.status()).state == "paused"
        for refused in (process.restart(), process.stop(), process.signal("SIGTERM")):
            with pytest.raises(NotApplicable, match="paused"):
                await refused
        assert (await process.start()).pid == pid
        assert state(name) == "running"


async def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="No such container"):
        await ContainerProcess(LOCAL, "evenkeel-containers-none").status()
    line = Line(str(tmp_path / "engine.sock"))
    with pytest.raises(Unreachable, match="no engine answers"):
        await ContainerProcess(ContainerEngine(line.url), "any").restart()
    with container() as name:
        await line.connect()
        engine = ContainerEngine(line.url)
        await engine.inspect(name)

        def lose(_client: object) -> None:
            line.hang()

        def change(client: object) -> None:
            lose(client)
            client.containers.get(name).pause()  # type: ignore[attr-defined]

        with pytest.raises(OutcomeUnknown, match="reply was lost"):
            await engine.call(name, change, sent=True, seconds=0.5)
        await line.cut()
