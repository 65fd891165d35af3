"""What a Docker engine tells by itself: events, and each second's statistics of a container.

Read from the engine's API directly: the SDK needs a thread for each stream, and has no way to end one.
https://docs.docker.com/reference/api/engine/version/v1.41/
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tasks.clients.container_facts import compose_service

CONNECT_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
CONNECTED, LOST = "connected", "lost"
CONTAINER_ACTIONS = (
    *("create", "start", "restart", "die", "oom", "kill", "stop", "pause", "unpause"),
    *("health_status", "update", "rename", "destroy"),
)
NETWORK_ACTIONS = ("connect", "disconnect")
_FILTERS = json.dumps({"type": ["container", "network"], "event": [*CONTAINER_ACTIONS, *NETWORK_ACTIONS]})
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContainerEvent:
    """Something that happened to a container."""

    container: str
    """Its name; empty for `connected` and `lost`, which are about the engine itself."""
    action: str
    """The engine's word (start, die, oom, kill, pause, unpause, destroy, update ...; "health_status: unhealthy"), or network_connect,
    network_disconnect, connected (to the stream, again perhaps: what was missed is unknown), lost (the stream; it is tried again)."""
    at: float
    """Epoch seconds."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The engine's: labels, exitCode of die, signal of kill, oldName of rename, network."""


def open_http(engine: str) -> httpx.AsyncClient:
    """A client of the engine at unix:///path or tcp://host:port, for any number of streams."""
    path = engine.removeprefix("unix://") if engine.startswith("unix://") else None
    # Without TLS settings: reading the certificates costs 50 ms, and neither address needs them.
    transport = httpx.AsyncHTTPTransport(uds=path, verify=False, trust_env=False, limits=httpx.Limits(max_connections=None))
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://engine" if path else engine.replace("tcp://", "http://"),
        timeout=httpx.Timeout(CONNECT_SECONDS, read=None),
        trust_env=False,
    )


async def container_events(engine: str, *, since: float | None = None) -> AsyncGenerator[ContainerEvent]:
    """What happens to the containers of an engine, for as long as it is asked for; health checks' own commands are left out.

    `since`: from then on, in epoch seconds, as far as the engine remembers (its latest 256 events); none: from now on. Where the engine
    is lost it is connected to again, with growing pauses of 0.1 s to 5 s, and asked for what was missed. Use it within
    `contextlib.aclosing`. It raises nothing but cancellation.
    """
    names: dict[str, str] = {}
    last, pause, is_lost = since, FIRST_PAUSE_SECONDS, False
    async with open_http(engine) as http:
        while True:
            try:
                names.update(await container_names(http))
                query = {"filters": _FILTERS} | ({} if last is None else {"since": f"{last:.9f}"})
                async with _stream(http, "/events", query) as lines:
                    pause, is_lost = FIRST_PAUSE_SECONDS, False
                    last = last or time.time()
                    yield ContainerEvent("", CONNECTED, time.time())
                    async for line in lines:
                        event = _event(json.loads(line), names)
                        if event is not None and (last is None or event.at > last):
                            last = event.at
                            yield event
                why = "the engine ended them"
            except (httpx.HTTPError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
            if not is_lost:
                _log.warning("the events of the engine at %s are lost: %s", engine, why)
                is_lost = True
                yield ContainerEvent("", LOST, time.time())
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def container_names(http: httpx.AsyncClient) -> dict[str, str]:
    """Name of every container, by its id."""
    response = await http.get("/containers/json", params={"all": "1"}, timeout=CONNECT_SECONDS)
    response.raise_for_status()
    return {found["Id"]: found["Names"][0].lstrip("/") for found in response.json() if found.get("Names")}


async def running_services(http: httpx.AsyncClient) -> dict[tuple[str, str], set[str]]:
    """Project and service of compose -> names of its running containers."""
    response = await http.get("/containers/json", timeout=CONNECT_SECONDS)
    response.raise_for_status()
    found: dict[tuple[str, str], set[str]] = {}
    for container in response.json():
        owner = compose_service(container.get("Labels") or {})
        if owner is not None and container.get("Names"):
            found.setdefault((owner.project, owner.service), set()).add(container["Names"][0].lstrip("/"))
    return found


async def container_statistics(http: httpx.AsyncClient, container: str) -> AsyncGenerator[dict[str, Any]]:
    """Statistics of a running container, about one a second, until the engine ends it. Raises httpx.HTTPError."""
    async with _stream(http, f"/containers/{container}/stats", {"stream": "1"}) as lines:
        async for line in lines:
            yield json.loads(line)


async def read_output(engine: str, command: str) -> str:
    """Stdout and stderr, as they come, of a command that was created in a container, until it ends. Raises httpx.HTTPError."""
    output, frames = bytearray(), bytearray()
    options = {"Detach": False, "Tty": False}
    async with open_http(engine) as http, http.stream("POST", f"/exec/{command}/start", json=options) as response:
        if response.is_error:
            await response.aread()
        response.raise_for_status()
        async for chunk in response.aiter_raw():
            frames += chunk
            # A frame has a header of 8 bytes, the last four of which are its length.
            while len(frames) >= 8 and len(frames) >= 8 + (length := int.from_bytes(frames[4:8])):
                output += frames[8 : 8 + length]
                del frames[: 8 + length]
    return output.decode(errors="replace")


@asynccontextmanager
async def _stream(http: httpx.AsyncClient, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[str]]:
    async with http.stream("GET", path, params=query) as response:
        response.raise_for_status()
        yield response.aiter_lines()


def _event(told: dict[str, Any], names: dict[str, str]) -> ContainerEvent | None:
    action, actor = told["Action"], told["Actor"]
    attributes = actor["Attributes"]
    at = told["timeNano"] / 1e9
    if told["Type"] == "container":
        name = attributes.get("name", "")
        names[actor["ID"]] = name
        return ContainerEvent(name, action, at, attributes)
    if action in NETWORK_ACTIONS and "container" in attributes:
        container = attributes["container"]
        network = {"network": attributes.get("name", "")}
        return ContainerEvent(names.get(container, container[:12]), f"network_{action}", at, network)
    return None
