"""Tools for a plain HTTP service."""

import httpx
from pydantic import JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.polling import poll
from tasks.clients.runtime import ServiceStatus, require_runtime
from tasks.clients.web import WebClient
from tasks.core.declare import NoArgs, tool
from tasks.core.errors import ToolFailed
from tasks.core.models import Change

ANSWER_SECONDS = 15.0
TRY_SECONDS = 1.0
POLL_SECONDS = 0.05


@tool(service=Kind.HTTP, risk=Risk.DISRUPTIVE, title="Restart the service", timeout_seconds=35, symptoms={"down", "unresponsive"})
async def http_restart(client: WebClient, _args: NoArgs) -> Change:
    """Restart the service, or start it where it is down, and wait until its address answers.

    Requests under way are lost. Any status counts as an answer: what a page says about its dependencies is no matter of restarting.
    NotApplicable: the inventory names no runtime, or somebody else has started it meanwhile. ToolFailed: no answer 15 s after the
    start, or the same process as before.
    """
    name = client.resource.name
    runtime = require_runtime(client.runtime, name)
    before = await runtime.status()
    after = await (runtime.restart() if before.state == "running" else runtime.start())
    status_code = await poll(lambda: _status_code(client), seconds=ANSWER_SECONDS, every_seconds=POLL_SECONDS)
    if status_code is None:
        raise ToolFailed(f"{name}: started as process {after.pid}, and no answer from {client.resource.address} after {ANSWER_SECONDS:g} s")
    after = await runtime.status()
    if after.pid == before.pid:
        raise ToolFailed(f"{name}: still the same process {before.pid}")
    return Change(before=_values(before), after={**_values(after), "status_code": status_code})


async def _status_code(client: WebClient) -> int | None:
    try:
        response = await client.http.get(client.resource.address, timeout=TRY_SECONDS)
    except httpx.TransportError:
        # Not listening yet; the caller gives up in time.
        return None
    return response.status_code


def _values(status: ServiceStatus) -> dict[str, JsonValue]:
    return {"state": status.state, "pid": status.pid}
