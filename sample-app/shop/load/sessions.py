"""A bounded set of long-lived sessions that are opened together and closed together."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shop.errors import Conflict

# Enough to be quick, few enough for the listen queue of any server.
OPENING_AT_ONCE = 64
OPENING_SECONDS = 8.0

# Runs one session to its end, and calls its argument once the session stands.
Session = Callable[[Callable[[], None]], Awaitable[None]]


class SessionEnded(Exception):
    """The server refused the session, or closed it before its time."""


@dataclass(frozen=True)
class Opened:
    """How many of the sessions asked for stand, how many do not, and the most frequent reason why not."""

    held: int
    refused: int
    reason: str | None

    def as_json(self) -> dict[str, object]:
        """As the load endpoints answer it."""
        return {"held": self.held, "refused": self.refused, "reason": self.reason}


class Sessions:
    """Sessions of one kind. One that ends is never opened again, and the rest of the shop does not notice."""

    def __init__(self, name: str, limit: int) -> None:
        self._limit = limit
        self._logger = logging.getLogger(f"shop.{name}")
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._standing: set[asyncio.Task[None]] = set()
        self._ended_early = 0
        self._closings = 0

    def status(self) -> dict[str, object]:
        """How many stand now, and how many the server has closed before their time since none was open."""
        return {"held": len(self._standing), "ended_early": self._ended_early}

    async def open(self, count: int, session: Session) -> Opened:
        """Open `count` more, and return when each of them stands or was refused.

        Raises Conflict when there would be more than the limit.
        """
        async with self._opening:
            if len(self._tasks) + count > self._limit:
                raise Conflict(f"{len(self._tasks)} are open and {self._limit} is the limit: DELETE closes them")
            if not self._tasks:
                self._ended_early = 0
            at_once = asyncio.Semaphore(OPENING_AT_ONCE)
            deadline = asyncio.get_running_loop().time() + OPENING_SECONDS
            closings = self._closings
            outcomes = await asyncio.gather(*(self._open_one(session, at_once, deadline, closings) for _ in range(count)))
        reasons = Counter(outcome for outcome in outcomes if outcome is not None)
        refused = reasons.total()
        return Opened(held=count - refused, refused=refused, reason=reasons.most_common(1)[0][0] if reasons else None)

    async def close(self, seconds: float = 5.0) -> int:
        """Close every session, and stop opening more; wait `seconds` at most. Return how many stood."""
        self._closings += 1
        tasks, stood = set(self._tasks), len(self._standing)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return stood

    async def _open_one(self, session: Session, at_once: asyncio.Semaphore, deadline: float, closings: int) -> str | None:
        """None once the session stands, otherwise why it does not."""
        settled: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        task: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout_at(deadline), at_once:
                if closings != self._closings:
                    return "closed while opening"
                task = asyncio.create_task(self._run(session, settled))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return await settled
        except TimeoutError:
            if task is not None:
                task.cancel()
            return f"no answer within {OPENING_SECONDS:g} s"

    async def _run(self, session: Session, settled: asyncio.Future[str | None]) -> None:
        task = asyncio.current_task()
        assert task is not None, "this coroutine runs as a task"

        def stand() -> None:
            if not settled.done():
                settled.set_result(None)
                self._standing.add(task)

        refusal = "closed while opening"
        try:
            await session(stand)
        except SessionEnded as error:
            refusal = str(error)
            if task in self._standing:
                self._ended_early += 1
                self._logger.warning("a session was closed by the server: %s", error)
        finally:
            self._standing.discard(task)
            if not settled.done():
                settled.set_result(refusal)
