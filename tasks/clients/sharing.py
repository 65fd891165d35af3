"""One measurement for all who ask at the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Runs one call at a time; whoever waits takes its result if the call began after the asking.

    So nobody gets a value from before the question, and any number of askers cost two calls.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def get(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that began after this. What `call` raises reaches only the asker that made it."""
        asked_at = time.monotonic()
        async with self._turn:
            if self._last is None or self._last[0] < asked_at:
                started_at = time.monotonic()
                self._last = started_at, await call()
            return self._last[1]
