"""From events to looks: each resource is looked at once at a time, and not more often than the rate allows.

A look is a monitor run of some resources. What is turned away here is not lost: the scheduled monitor sees to it.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from logging import Logger
from typing import NamedTuple

from prefect import get_run_logger
from prefect.logging.loggers import LoggingAdapter

from blocks.schema import Inventory
from tasks.clients.container_streams import CONNECTED, LOST, ContainerEvent, container_events
from tasks.core.admission import TokenBucket
from tasks.core.alerts import plain

GATHER_SECONDS = 0.02
SAY_EVERY_SECONDS = 10.0
NOTEWORTHY = {
    "die": "died",
    "oom": "ran out of memory",
    "pause": "was paused",
    "destroy": "was removed",
    "rename": "was renamed",
    "health_status: unhealthy": "is unhealthy",
    "network_disconnect": "was taken off its network",
}
"""What an engine tells that is worth a look. `stop` and `kill` come with a `die`, if the process ends."""

Look = Callable[[list[str], str], Awaitable[None]]
"""Resources and the cause -> all that follows from looking at them."""
Events = Callable[[str], AsyncGenerator[ContainerEvent]]
"""An engine's address -> what happens to its containers."""


class Offered(NamedTuple):
    """What became of a cause, by resource."""

    looked_at: tuple[str, ...] = ()
    already: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    retry_seconds: float = 0


@dataclass
class Watching:
    """The looks that are under way. Made inside of a flow, whose subflows they become."""

    look: Look
    bucket: TokenBucket
    logger: Logger | LoggingAdapter = field(default_factory=get_run_logger)
    looks: int = 0
    duplicates: int = 0
    dropped: int = 0
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)
    _said_at: float = float("-inf")
    _said_dropped: int = 0

    def offer(self, causes: Mapping[str, str]) -> Offered:
        """Look at these resources now, all in one run, except those that are being looked at. `causes`: resource -> why."""
        already = tuple(name for name in causes if name in self._under_way)
        wanted = [name for name in causes if name not in self._under_way]
        self.duplicates += len(already)
        if not wanted:
            return Offered(already=already)
        retry_seconds = self.bucket.take(time.monotonic())
        if retry_seconds:
            self.dropped += len(wanted)
            self._say_what_was_dropped(wanted)
            return Offered((), already, tuple(wanted), retry_seconds)
        self.looks += 1
        task = asyncio.create_task(self._looked(wanted, causes[wanted[0]]), context=self._context.copy())
        self._under_way |= dict.fromkeys(wanted, task)
        task.add_done_callback(partial(self._ended, wanted))
        return Offered(tuple(wanted), already)

    async def drained(self) -> None:
        """Wait for the looks that are under way, with all that follows from them."""
        while self._under_way:
            await asyncio.wait(set(self._under_way.values()))

    async def _looked(self, resources: list[str], cause: str) -> None:
        await self.look(resources, cause)

    def _ended(self, resources: list[str], task: asyncio.Task[None]) -> None:
        for name in resources:
            self._under_way.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # one look that fails ends no other, and not the watching
            self.logger.error("the look at %s failed", ", ".join(resources), exc_info=error)

    def _say_what_was_dropped(self, resources: list[str]) -> None:
        now = time.monotonic()
        if now - self._said_at < SAY_EVERY_SECONDS:
            return
        self.logger.warning(
            "too many causes to look: %d turned away since this was last said, now for %s; the scheduled monitor sees to them",
            self.dropped - self._said_dropped,
            ", ".join(resources),
        )
        self._said_at, self._said_dropped = now, self.dropped


async def follow_engine(engine: str, inventory: Inventory, watching: Watching, events: Events = container_events) -> None:
    """Look at what an engine's events are about; where it was lost and is back, at all that runs on it. Never ends by itself."""
    heard: asyncio.Queue[ContainerEvent] = asyncio.Queue(maxsize=10_000)
    async with contextlib.aclosing(events(engine)) as stream:
        listening = asyncio.create_task(_listen(stream, heard))
        try:
            lost = False
            while True:
                batch = await _next_batch(heard, listening)
                causes: dict[str, str] = {}
                for event in batch:
                    back = lost and event.action == CONNECTED
                    lost = event.action == LOST or (lost and not back)
                    for name, why in causes_of(event, engine, inventory, back=back).items():
                        causes.setdefault(name, why)
                if causes:
                    watching.offer(causes)
        finally:
            listening.cancel()
            await asyncio.wait({listening})


async def _listen(stream: AsyncGenerator[ContainerEvent], heard: asyncio.Queue[ContainerEvent]) -> None:
    async for event in stream:
        await heard.put(event)


async def _next_batch(heard: asyncio.Queue[ContainerEvent], listening: asyncio.Task[None]) -> list[ContainerEvent]:
    """The next event and what comes with it: a host that goes down is one cause, not a hundred."""
    waiting = asyncio.create_task(heard.get())
    try:
        await asyncio.wait({waiting, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            listening.result()
            raise RuntimeError("the events ended, which they never should")
    finally:
        waiting.cancel()
    batch = [waiting.result()]
    await asyncio.sleep(GATHER_SECONDS)
    while not heard.empty():
        batch.append(heard.get_nowait())
    return batch


def causes_of(event: ContainerEvent, engine: str, inventory: Inventory, *, back: bool = False) -> dict[str, str]:
    """Resource -> why to look at it, of an event of that engine; `back`: it was lost, so anything may have happened meanwhile."""
    here = {one.name: one.container.container for one in inventory.resources if one.container and one.container.engine == engine}
    if back:
        return dict.fromkeys(here, "the container engine is back")
    told = NOTEWORTHY.get(event.action)
    if told is None:
        return {}
    code = event.attributes.get("exitCode")
    exit_code = f" (exit code {plain(code)})" if event.action == "die" and code else ""
    concerned = {event.container, event.attributes.get("oldName", "").lstrip("/")}
    return {name: f"container {plain(event.container)} {told}{exit_code}" for name, container in here.items() if container in concerned}
