"""Waiting for an effect to show, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def poll(attempt: Callable[[], Awaitable[T | None]], *, seconds: float, every_seconds: float = 0.01) -> T | None:
    """The first answer of `attempt` that is not None, or None when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = await attempt()
        if found is not None or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(every_seconds)
