"""What an engine tells by itself, told by a real one, also over a line that breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tasks.clients.container_streams import CONNECTED, LOST, ContainerEvent, container_events
from tests.tasks.engine import SOCKET, Line, container, docker, network, until

pytestmark = pytest.mark.docker


@asynccontextmanager
async def followed(url: str) -> AsyncIterator[list[ContainerEvent]]:
    """The events from now on, in a list that grows."""
    found: list[ContainerEvent] = []

    async def follow() -> None:
        async with aclosing(container_events(url)) as events:
            async for event in events:
                found.append(event)  # noqa: PERF401 - it grows while it is looked at

    task = asyncio.create_task(follow())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_events_of_containers_and_their_networks_come_with_names_and_without_health_checks() -> None:
    async with followed(f"unix://{SOCKET}") as events:
        await until(lambda: [event.action for event in events] == [CONNECTED])
        with network() as net, container("--network", net, "--health-cmd", "true", "--health-interval", "1s") as name:

            def seen(action: str) -> ContainerEvent | None:
                return next((event for event in events if (event.container, event.action) == (name, action)), None)

            await until(lambda: seen("health_status: healthy"))
            docker("network", "disconnect", net, name)
            docker("kill", name)
            for action in ("create", "start", "network_disconnect", "kill", "die"):
                await until(partial(seen, action))
            died, left = seen("die"), seen("network_disconnect")
        await until(lambda: seen("destroy"))
    assert died is not None
    assert died.attributes["exitCode"] == "137"
    assert left is not None
    assert left.attributes == {"network": net}
    assert not [event for event in events if event.action.startswith("exec")]


async def test_what_happened_while_the_line_was_cut_is_told_afterwards(tmp_path: Path) -> None:
    line = Line(str(tmp_path / "engine.sock"))
    await line.connect()
    with container() as name:
        async with followed(line.url) as events:
            await until(lambda: any(event.action == CONNECTED for event in events))
            docker("pause", name)
            await until(lambda: any(event.action == "pause" for event in events))
            await line.cut()
            await until(lambda: events[-1].action == LOST)
            docker("unpause", name)
            await line.connect()
            await until(lambda: any(event.action == "unpause" for event in events))
            await line.cut()
    own = [event.action for event in events if event.container in {name, ""}]
    assert own == [CONNECTED, "pause", LOST, CONNECTED, "unpause"]
