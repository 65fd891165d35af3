"""A tool for a script or function that keeps Redis from answering anybody else."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from blocks.schema import Kind, Risk
from tasks.clients.polling import poll
from tasks.clients.redis_server import RedisClient, translated
from tasks.core.declare import NoArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed
from tasks.core.models import Change, Observation

ANSWER_SECONDS = 10.0
"""A server says BUSY, and takes SCRIPT KILL, only when a script has run for busy-reply-threshold: 5 s unless set."""
ENDED_SECONDS = 5.0


def is_computing(observation: Observation) -> bool:
    """Whether a script is measured to block the server, or a silent server is measured to compute."""
    values = observation.reading.values
    return values.get("blocked_by_script") is True or values.get("process_state") == "running"


@tool(
    service=Kind.REDIS,
    risk=Risk.DISRUPTIVE,
    title="End a blocking script",
    timeout_seconds=20,
    symptoms={"script_blocking", "unresponsive"},
    fits=is_computing,
)
async def redis_script_kill(client: RedisClient, _args: NoArgs) -> Change:
    """End the script or function that blocks the server; its caller gets an error, and nothing is lost.

    SCRIPT KILL, FUNCTION KILL for a function. Waits up to 10 s for a silent server to take it. NotApplicable where none runs, and where
    it has written already: then only losing what is not saved would end it, which a person decides. Unreachable, OutcomeUnknown or
    ToolFailed otherwise.
    """
    name, ended = client.resource.name, "script"
    word = await _kill(client, client.redis.script_kill)
    if word.startswith("BUSY"):
        ended, word = "function", await _kill(client, client.redis.function_kill)
    if word.startswith("NOTBUSY"):
        raise NotApplicable(f"{name}: no script runs, nothing was ended")
    if word.startswith("UNKILLABLE"):
        raise NotApplicable(f"{name}: the {ended} has written already, so it can't be ended without losing data; a person decides")
    if word != "OK":
        raise ToolFailed(f"{name}: the server refused to end the script: {word}")

    async def answers() -> bool | None:
        try:
            return bool(await client.redis.ping()) or None
        except (ResponseError, RedisTimeoutError):
            return None

    with translated(client.resource, sent=True):
        if not await poll(answers, seconds=ENDED_SECONDS):
            raise ToolFailed(f"{name}: the {ended} was told to end, and still blocks after {ENDED_SECONDS:g} s")
    return Change(before={"blocked_by_script": True}, after={"blocked_by_script": False, "ended": ended})


async def _kill(client: RedisClient, kill: Callable[[], Awaitable[Any]]) -> str:
    """The server's word, OK or an error, as soon as it takes the command."""
    name, deadline = client.resource.name, time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        with translated(client.resource, sent=False):
            try:
                await kill()
            except RedisTimeoutError:
                continue  # the server may take it yet, and taking it twice harms nothing
            except ResponseError as error:
                return str(error)
        return "OK"
    raise OutcomeUnknown(f"{name}: the server did not take the command within {ANSWER_SECONDS:g} s")
