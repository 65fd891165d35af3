"""The latest state of an engine's containers, kept in memory by its streams: to look at hundreds of them costs one question."""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import httpx

from tasks.clients.container_engine import ContainerEngine
from tasks.clients.container_facts import Inspected, compose_service, labels, networks
from tasks.clients.container_history import HOUR_SECONDS, History
from tasks.clients.container_samples import Samples, read_sample
from tasks.clients.container_streams import (
    CONNECTED,
    LOST,
    ContainerEvent,
    container_events,
    container_statistics,
    open_http,
    running_services,
)
from tasks.clients.sharing import Shared
from tasks.core.errors import EvenkeelError, ProbeBroken

ANSWER_SECONDS = 1.5
FIRST_SECONDS = 2.5
"""How long a container that nobody watched before is waited for: two of its statistics, which come each second."""
STALE_SECONDS = 10.0
PAUSE_SECONDS = 0.5
AT_ONCE = 50
"""Containers that are looked at on one connection."""
_log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What is known of one container."""

    name: str
    inspected: Inspected | None = None
    """None: there is none of that name."""
    history: History = field(default_factory=History)
    samples: Samples = field(default_factory=Samples)
    networks: dict[str, list[str]] = field(default_factory=dict)
    """Every network that it was seen in, and its names there."""
    is_known: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set while something happened that was not looked at since."""
    is_sampled: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)
    looked_at: float | None = None
    sampled_at: float = 0
    stream: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process is there and not paused."""
        return self.inspected is not None and self.inspected["State"]["Status"] == "running"

    def begin_anew(self, *, wait: bool) -> None:
        """Forget figures from before a start or a change of limits; `wait`: whoever looks next waits for those under the new limits."""
        self.samples.clear()
        if wait:
            self.is_sampled.clear()
            self.since = time.monotonic()

    def learn(self, inspected: Inspected | None) -> None:
        """Take what the engine tells of it now."""
        if inspected is not None and self.inspected is not None and inspected["Id"] != self.inspected["Id"]:
            self.networks.clear()
        if not self.is_running:
            # Until the first figures come.
            self.sampled_at = time.monotonic()
        self.inspected, self.looked_at = inspected, time.monotonic()
        self.networks.update(networks(inspected) if inspected is not None else {})


class EngineWatch:
    """Follows one engine's events, and the statistics of the containers that were asked for. Begins with the first question."""

    def __init__(self, url: str) -> None:
        self.engine = ContainerEngine(url)
        self._http = open_http(url)
        # Apart: among the connections of hundreds of streams to find a free one takes longer than the answer.
        self._asking = open_http(url)
        self._watched: dict[str, Watched] = {}
        self._histories: dict[str, History] = {}
        self._services: dict[tuple[str, str], set[str]] = {}
        self._unseen: set[str] = set()
        self._has_unseen = asyncio.Event()
        self._lost_at: float | None = None
        self._pings: Shared[str] = Shared()
        self._tasks: list[asyncio.Task[None]] = []

    async def current(self, container: str, *, sampled: bool = True) -> Watched:
        """What is known of a container now; `sampled`: with figures, for which one that nobody watched before is waited.

        ProbeBroken: the engine does not answer, or what is known is stale, and how old it is.
        """
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._look())]
        for task in self._tasks:
            if task.done():
                task.result()
        why = await self._pings.get(self._ping)
        if why:
            raise ProbeBroken(f"{container}: {why}{self._age()}")
        watched = self._watched.get(container) or self._begin(container)
        await _wait(watched.is_known, ANSWER_SECONDS)
        if watched.is_running and sampled:
            await _wait(watched.is_sampled, watched.since + FIRST_SECONDS - time.monotonic())
        self._refuse_stale(watched)
        return watched

    def replicas(self, inspected: Inspected) -> int | None:
        """How many containers of its compose service run; None where compose did not make it."""
        owner = compose_service(labels(inspected))
        return None if owner is None else len(self._services.get((owner.project, owner.service), ()))

    async def close(self) -> None:
        """End all streams."""
        tasks = [*self._tasks, *(watched.stream for watched in self._watched.values() if watched.stream is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(self._http.aclose(), self._asking.aclose())

    def _refuse_stale(self, watched: Watched) -> None:
        if watched.stream is not None and watched.stream.done() and not watched.stream.cancelled():
            watched.stream.result()
        now = time.monotonic()
        if watched.looked_at is None or (not watched.is_known.is_set() and now - watched.looked_at > STALE_SECONDS):
            raise ProbeBroken(f"{watched.name}: the engine at {self.engine.url} does not say what became of the container")
        if self._lost_at is not None:
            raise ProbeBroken(f"{watched.name}: the engine's events are lost{self._age()}")
        age = now - watched.sampled_at
        if watched.is_running and age > STALE_SECONDS:
            raise ProbeBroken(f"{watched.name}: the engine sends no statistics; the last ones are {age:.0f} s old")

    def _age(self) -> str:
        return "" if self._lost_at is None else f"; what is known is {time.time() - self._lost_at:.0f} s old"

    async def _ping(self) -> str:
        try:
            response = await self._asking.get("/_ping", timeout=ANSWER_SECONDS)
        except httpx.TimeoutException:
            return f"the engine at {self.engine.url} did not answer within {ANSWER_SECONDS:g} s"
        except httpx.TransportError as error:
            return f"no engine answers at {self.engine.url}: {error}"
        return "" if response.is_success else f"the engine at {self.engine.url} answers {response.status_code}"

    def _begin(self, name: str) -> Watched:
        watched = Watched(name, history=self._histories.setdefault(name, History()))
        self._watched[name] = watched
        self._note(name)
        return watched

    def _note(self, name: str) -> None:
        """Have a container looked at, if it is watched."""
        if name in self._watched:
            self._watched[name].is_known.clear()
            self._unseen.add(name)
            self._has_unseen.set()

    async def _follow(self) -> None:
        async with aclosing(container_events(self.engine.url, since=time.time() - HOUR_SECONDS)) as events:
            async for event in events:
                if event.action == LOST:
                    self._lost_at = event.at
                elif event.action == CONNECTED:
                    self._lost_at = None
                    await self._read_services()
                    for name in self._watched:
                        self._note(name)
                else:
                    self._take(event)

    async def _read_services(self) -> None:
        try:
            self._services = await running_services(self._http)
        except (httpx.HTTPError, ValueError) as error:
            _log.warning("the replicas at %s are not known: %s", self.engine.url, error)

    def _take(self, event: ContainerEvent) -> None:
        name = event.container
        self._count(event)
        if event.action == "create" and name in self._histories:
            self._histories[name].clear()
        elif event.action == "destroy" and name not in self._watched:
            self._histories.pop(name, None)
            return
        self._histories.setdefault(name, History()).add(event)
        if name in self._watched and event.action in {"start", "update"}:
            self._watched[name].begin_anew(wait=event.action == "update")
        self._note(name)
        self._note(event.attributes.get("oldName", "").lstrip("/"))

    def _count(self, event: ContainerEvent) -> None:
        owner = compose_service(event.attributes)
        if owner is None:
            return
        running = self._services.setdefault((owner.project, owner.service), set())
        if event.action == "start":
            running.add(event.container)
        elif event.action in {"die", "destroy"}:
            running.discard(event.container)

    async def _look(self) -> None:
        """Look at what changed; one connection for many."""
        while True:
            await self._has_unseen.wait()
            names = sorted(self._unseen)[:AT_ONCE]
            self._unseen.difference_update(names)
            if not self._unseen:
                self._has_unseen.clear()
            try:
                found = await self.engine.inspect_each(names)
            except EvenkeelError as error:
                _log.warning("containers can't be looked at: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                for name in names:
                    self._note(name)
                continue
            for name, inspected in found.items():
                watched = self._watched[name]
                watched.learn(inspected)
                self._stream(watched)
                # Also where something more happened meanwhile: that is seen at the next look.
                watched.is_known.set()

    def _stream(self, watched: Watched) -> None:
        has_process = watched.inspected is not None and watched.inspected["State"]["Running"]
        if not has_process:
            watched.samples.clear()
            if watched.stream is not None:
                watched.stream.cancel()
                watched.stream = None
        elif watched.stream is None:
            watched.stream = asyncio.create_task(self._sample(watched))

    async def _sample(self, watched: Watched) -> None:
        while True:
            try:
                async with aclosing(container_statistics(self._http, watched.name)) as statistics:
                    async for told in statistics:
                        sample = read_sample(told)
                        if sample is not None:
                            watched.samples.add(sample)
                            watched.sampled_at = time.monotonic()
                        if len(watched.samples) > 1:
                            watched.is_sampled.set()
            except (httpx.HTTPError, ValueError) as error:
                # Told to whoever asks, once what is known is stale.
                _log.debug("statistics of %s: %s", watched.name, error)
            await asyncio.sleep(PAUSE_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event so long at most."""
    if event.is_set() or seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


@dataclass
class _Held:
    watch: EngineWatch
    users: int = 0


_held: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Held]] = WeakKeyDictionary()


def hold(url: str) -> EngineWatch:
    """The event loop's watch of an engine, which all share; each ends with `let_go`."""
    held = _held.setdefault(asyncio.get_running_loop(), {}).setdefault(url, _Held(EngineWatch(url)))
    held.users += 1
    return held.watch


async def let_go(url: str) -> None:
    """End the watch with its last user."""
    shared = _held[asyncio.get_running_loop()]
    shared[url].users -= 1
    if not shared[url].users:
        await shared.pop(url).watch.close()
