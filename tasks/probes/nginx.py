"""How Nginx is measured and judged: by the page through the proxy, and explained by the workers' connections."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping

import httpx
from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_processes import Processes
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.core.models import Finding, Health, Reading

PAGE_SECONDS = 1.5
LONGEST_PAGE_SECONDS = 8.0
ANSWER_SECONDS = 0.5
RUNTIME_SECONDS = 0.5
BODY_BYTES = 64 * 1024
GATEWAY_ERRORS = frozenset({502, 504})
OWN_PAGE = b"<center>nginx"  # the foot of every error page that Nginx makes itself


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    if values.get("answers") == "refused":
        running = values.get("worker_processes")
        but = f", though {running} workers run" if running else ""
        return (_failed("down", f"no connection is accepted at {resource.address}{but}: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        stopped = values.get("stopped_workers")
        because = f"; {stopped} of its workers are stopped by a signal" if stopped else ""
        return (_failed("unresponsive", f"Nginx takes connections and answers none{because}"),)
    high = _connections(values, resource)
    found = (_page(values, saturated=high is not None), high, _latency(values, resource))
    return tuple(finding for finding in found if finding is not None)


@probe(service=Kind.NGINX, title="Nginx", judge=judge, headline="connections_percent", timeout_seconds=10)
async def measure(client: NginxClient, resource: Resource) -> Reading:
    """Measure Nginx: GET its address over a new connection, and count the workers' connections.

    Values:
      answers              "yes", "refused" (no connection) or "timeout" (neither the page nor Nginx itself gives an answer in time);
                           `error` says more
      page_ok              whether the page came with a status below 400
      page_status          its status; null where none came
      page_error           why none came, although Nginx answers: "timeout", "broken off" or "tls"; else null
      page_seconds         until the page was read, or given up: after 1.5 s, or after 1.25 times thresholds.latency_seconds
      page_from            who made a page of status 400 or more: "nginx" itself (its error pages say so) or "behind"; else null
      connections_used     connections of the workers that serve, to visitors and to upstreams (each takes a slot)
      connections_max      worker_connections, or open files where they are fewer, of all workers that serve
      connections_percent  their share in percent; busiest_worker_percent is that of the fullest worker, as slots are not shared
      worker_connections   limit of each running worker
      worker_processes     workers that serve
      draining_workers     old workers that only finish their requests; their connections do not count above
      stopped_workers      workers that a signal has stopped

    The connections come from /proc on this machine (see `read_processes`), the limit from the configuration as it was when the
    workers started (see `NginxClient.worker_connections`). Where the processes can't be looked into, because they run on another
    machine or as somebody else, these values are null, and only the page is judged. Whatever waits for an answer has a deadline.

    ProbeBroken: the address is no URL, or its name does not resolve.
    """
    return await client.readings.get(lambda: _measure(client, resource))


async def _measure(client: NginxClient, resource: Resource) -> Reading:
    page = await _page_values(client, resource)
    try:
        async with asyncio.timeout(RUNTIME_SECONDS):
            processes = await client.processes()
    except (EvenkeelError, TimeoutError):
        # A runtime that does not answer says nothing about Nginx.
        processes = None
    return Reading(values={**page, **_process_values(client, processes)})


def _process_values(client: NginxClient, processes: Processes | None) -> dict[str, JsonValue]:
    if processes is None:
        names = ("connections_used", "connections_max", "connections_percent", "busiest_worker_percent", "worker_connections")
        return dict.fromkeys((*names, "worker_processes", "draining_workers", "stopped_workers"))
    usage = client.usage(processes)
    serving = processes.of("serving")
    limits = [limit for worker in serving if (limit := client.worker_connections(worker)) is not None]
    return {
        "connections_used": usage.used,
        "connections_max": usage.maximum,
        "connections_percent": _rounded(usage.percent),
        "busiest_worker_percent": _rounded(usage.busiest_percent),
        "worker_connections": min(limits, default=None),
        "worker_processes": len(serving),
        "draining_workers": len(processes.of("draining")),
        "stopped_workers": len(processes.of("stopped")),
    }


async def _page_values(client: NginxClient, resource: Resource) -> dict[str, JsonValue]:
    deadline_seconds = min(max(PAGE_SECONDS, 1.25 * resource.thresholds.latency_seconds), LONGEST_PAGE_SECONDS)
    started = time.monotonic()
    values: dict[str, JsonValue] = {"answers": "yes", "page_ok": False, "page_status": None, "page_from": None, "page_error": None}
    try:
        async with asyncio.timeout(deadline_seconds):
            values |= await _get(client.http, resource.address, deadline_seconds)
    except (TimeoutError, httpx.TimeoutException):
        values |= {"page_error": "timeout", "error": f"no page within {deadline_seconds:g} s"}
        if not await _answers_itself(resource.address):
            values["answers"] = "timeout"
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ProbeBroken(f"{resource.name}: the address {resource.address} is no URL: {error}") from error
    except httpx.ConnectError as error:
        if _is_caused_by(error, socket.gaierror):
            raise ProbeBroken(f"{resource.name}: the name in {resource.address} does not resolve") from error
        if _is_caused_by(error, ssl.SSLError):
            values |= {"page_error": "tls", "error": f"TLS: {error}"}
        else:
            values |= {"answers": "refused", "error": str(error)}
    except httpx.TransportError as error:
        values |= {"page_error": "broken off", "error": f"the connection was taken and broken off ({type(error).__name__})"}
    return {**values, "page_seconds": round(time.monotonic() - started, 4)}


async def _get(http: httpx.AsyncClient, address: str, deadline_seconds: float) -> dict[str, JsonValue]:
    body = bytearray()
    # A kept connection would hide that no new one is taken.
    async with http.stream("GET", address, headers={"Connection": "close"}, timeout=deadline_seconds) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > BODY_BYTES:
                break
    status = response.status_code
    if status < httpx.codes.BAD_REQUEST:
        return {"page_ok": True, "page_status": status}
    return {"page_ok": False, "page_status": status, "page_from": "nginx" if OWN_PAGE in body else "behind"}


async def _answers_itself(address: str) -> bool:
    """Whether Nginx reacts to what is no HTTP request, which it refuses alone: then it is the page that hangs behind it."""
    url = httpx.URL(address)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(url.host, url.port or (443 if url.scheme == "https" else 80))
            try:
                writer.write(b"?\r\n\r\n")
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ConnectionError:
        return True  # it broke the connection off, and so it works
    except (TimeoutError, OSError):
        return False
    return True


def _is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def _page(values: Mapping[str, JsonValue], *, saturated: bool) -> Finding | None:
    if values.get("page_ok") is not False:
        return None
    status, error = values.get("page_status"), values.get("error")
    if values.get("page_error") == "timeout":
        return _failed("upstream_failing", f"{error}, while Nginx itself answers: what is behind it hangs")
    if status is None:
        return _failed("page_failing", f"{error}")
    if status in GATEWAY_ERRORS:
        return _failed("upstream_failing", f"the page answers {status}: what is behind Nginx does not answer it")
    if values.get("page_from") == "nginx" or (saturated and status == httpx.codes.INTERNAL_SERVER_ERROR):
        return _failed("page_failing", f"the page answers {status}, made by Nginx itself")
    return _failed("upstream_failing", f"the page answers {status}, passed on from behind Nginx")


def _connections(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    threshold = resource.thresholds.connections_percent
    percent, busiest = _number(values.get("connections_percent")), _number(values.get("busiest_worker_percent"))
    figures = f"{values.get('connections_used')} of {values.get('connections_max')} connections"
    if percent is not None and percent >= threshold:
        summary = f"{figures} are in use, {percent:.0f} % (threshold {threshold:g} %)"
    elif busiest is not None and busiest >= threshold:
        summary = f"one worker uses {busiest:.0f} % of its connections (threshold {threshold:g} %); {figures} in all"
    else:
        return None
    return Finding(symptom="connections_high", health=Health.DEGRADED, summary=summary)


def _latency(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    seconds, threshold = _number(values.get("page_seconds")), resource.thresholds.latency_seconds
    if values.get("page_ok") is not True or seconds is None or seconds < threshold:
        return None
    return Finding(symptom="slow", health=Health.DEGRADED, summary=f"the page took {seconds:.2f} s (threshold {threshold:g} s)")


def _failed(symptom: str, summary: str) -> Finding:
    return Finding(symptom=symptom, health=Health.FAILED, summary=summary)


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
