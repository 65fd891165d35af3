"""The one way in which Google Cloud is called: in a thread, under one deadline, repeated only where that is safe."""

import asyncio
import functools
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TypeVar

from tasks.clients.google_errors import Fault, Stage, Who, fault_of, known_errors, translated

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
SHORTEST_TRY_SECONDS = 1.0
GRACE_SECONDS = 0.5
"""How long after its own timeout a call that hangs is given up."""
THREADS = 16


class Repeat(StrEnum):
    """Whether a call may be sent again when it is not known what became of it."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    """It changes something and carries a request id, or its state was read again: sent twice it acts once."""
    NEVER = "never"


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # The event loop's own are few, and an API that hangs would keep them from everybody else.
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="google-cloud")


async def google_call(what: str, send: Callable[[float], T], *, repeat: Repeat, deadline_seconds: float, who: Who | None = None) -> T:
    """What `send` answers, a blocking call of a library that gets its timeout in seconds and does not repeat by itself.

    It ends within `deadline_seconds`, all tries together. Between tries it waits with jitter, and as long as Google asks for.
    Unreachable: nothing was sent, or nothing is changed by it. OutcomeUnknown: it changes something, and its reply was lost.
    NotApplicable: the wrong state (409, FAILED_PRECONDITION), nothing was done. ToolFailed: refused; says what is missing, and the remedy.
    """
    ends_at = time.monotonic() + deadline_seconds
    may_be_sent = False
    tries = 0
    cause: Exception
    while True:
        tries += 1
        remaining = ends_at - time.monotonic()
        # A call that may be sent again leaves time for that.
        timeout = remaining if repeat is Repeat.NEVER else min(remaining, max(remaining / 2, SHORTEST_TRY_SECONDS))
        try:
            async with asyncio.timeout(timeout + GRACE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(_threads(), send, max(timeout, 0.01))
        except TimeoutError as error:
            fault, cause = Fault(Stage.LOST, f"no answer within {timeout:.1f} s"), error
        except known_errors() as error:
            fault, cause = fault_of(error), error
        pause = _pause(fault, tries)
        if not _is_repeatable(fault, repeat) or time.monotonic() + pause >= ends_at:
            raise translated(fault, what, who or Who(), changes=repeat is not Repeat.READ, may_be_sent=may_be_sent) from cause
        may_be_sent = may_be_sent or fault.stage is Stage.LOST or fault.is_of_server
        await asyncio.sleep(pause)


def _pause(fault: Fault, tries: int) -> float:
    backoff = min(FIRST_PAUSE_SECONDS * 2.0 ** (tries - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)
    return max(backoff, fault.retry_after_seconds or 0)


def _is_repeatable(fault: Fault, repeat: Repeat) -> bool:
    if fault.stage is Stage.UNSENT or fault.is_of_rate:
        return True
    return repeat is not Repeat.NEVER and (fault.stage is Stage.LOST or fault.is_of_server)
