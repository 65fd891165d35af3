"""How Nginx is measured and judged: by the page through the proxy, and explained by the workers' connections."""

import asyncio
import ssl
import stat
import time
from pathlib import Path

import httpx
from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.causes import find_cause, is_caused_by
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_processes import Processes
from tasks.clients.web import usable_address
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError
from tasks.core.models import Reading
from tasks.core.nginx_judgement import judge

PAGE_SECONDS = 1.5
LONGEST_PAGE_SECONDS = 8.0
ANSWER_SECONDS = 0.5
RUNTIME_SECONDS = 1.5
BODY_BYTES = 64 * 1024
CONFIG_SECONDS = 3.0
DAY_SECONDS = 86400
CERTIFICATE_ERRORS = {9: "not yet valid", 10: "expired", 62: "for another name", 64: "for another address"}
"""OpenSSL's X509_V_ERR_... numbers; the others mean that its issuer is not trusted."""
OWN_PAGE = b"<center>nginx"  # the foot of every error page that Nginx makes itself


@probe(
    service=Kind.NGINX,
    title="Nginx",
    judge=judge,
    headline="connections_percent",
    timeout_seconds=10,
    trends={"connections_percent": "connections_high"},
)
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
      pages_failing        of the inventory's nginx.pages, those that do not answer: path -> status of 400 or more, or what was wrong
      wrong_modes          of nginx.modes, those that differ: path -> mode, "missing" where there is nothing
      certificate_days_left  until the https address's certificate expires; null for http, and where the certificate is refused
      certificate_error    why it is refused: "expired", "not yet valid", "for another name", "for another address", "not trusted"
      config_loaded        whether the workers use the configuration file as it stands; null where they can't be seen
      config_error         why Nginx would not load the file: what `nginx -t` says, asked when it changed; null where it would
      config_known_good    whether the file is the last one that served well for a minute; null where none was seen yet
      undeclared_servers   upstream -> servers in the file that nginx.upstreams does not declare; only upstreams that it names
      unused_servers       upstream -> servers that it declares and that are not in the file

    The connections come from /proc on this machine (see `read_processes`), the limit from the configuration as it was when the
    workers started (see `NginxClient.worker_connections`). Where the processes can't be looked into, because they run on another
    machine or as somebody else, these values are null, and only the page is judged. Whatever waits for an answer has a deadline.

    ProbeBroken: the address is no URL, or its name does not resolve.
    """
    return await client.readings.get(lambda: _measure(client, resource))


async def _measure(client: NginxClient, resource: Resource) -> Reading:
    page, failing = await asyncio.gather(_page_values(client, resource), _pages_failing(client, resource))
    try:
        async with asyncio.timeout(RUNTIME_SECONDS):
            processes = await client.processes()
    except (EvenkeelError, TimeoutError):
        # A runtime that does not answer says nothing about Nginx.
        processes = None
    wrong = _wrong_modes(resource)
    is_well = page["page_ok"] is True and not failing and not wrong
    config = await _config_values(client, resource, processes, keep=is_well)
    return Reading(values={**page, **_process_values(client, processes), **config, "pages_failing": failing, "wrong_modes": wrong})


async def _config_values(client: NginxClient, resource: Resource, processes: Processes | None, *, keep: bool) -> dict[str, JsonValue]:
    """What is known of the configuration file. Where the page is as it should be, a copy of the file is kept to go back to."""
    values: dict[str, JsonValue] = dict.fromkeys(("config_loaded", "config_error", "config_known_good"))
    try:
        async with asyncio.timeout(CONFIG_SECONDS):
            file = client.config_file()
            state = await client.watch.state(file, processes, client)
            known_good = await client.watch.keep_if_good(file, state) if keep else state.is_known_good
    except (EvenkeelError, TimeoutError):
        # A file that can't be read or tested from here says nothing about Nginx.
        return values
    undeclared: dict[str, list[JsonValue]] = {}
    unused: dict[str, list[JsonValue]] = {}
    for name, declared in resource.nginx.upstreams.items():
        if name in state.servers:
            undeclared[name] = [server for server in state.servers[name] if server not in declared]
            unused[name] = [server for server in declared if server not in state.servers[name]]
    return {
        "config_loaded": state.is_loaded,
        "config_error": state.error,
        "config_known_good": known_good,
        "undeclared_servers": {name: servers for name, servers in undeclared.items() if servers},
        "unused_servers": {name: servers for name, servers in unused.items() if servers},
    }


def _wrong_modes(resource: Resource) -> dict[str, JsonValue]:
    wrong: dict[str, JsonValue] = {}
    for path, mode in resource.nginx.modes.items():
        try:
            found = stat.S_IMODE(Path(path).lstat().st_mode)
        except FileNotFoundError:
            wrong[path] = "missing"
        except OSError:
            continue  # it can't be looked at from here
        else:
            if found != int(mode, 8):
                wrong[path] = f"{found:04o}"
    return wrong


async def _pages_failing(client: NginxClient, resource: Resource) -> dict[str, JsonValue]:
    base = httpx.URL(resource.address) if resource.nginx.pages else None
    answers = await asyncio.gather(
        *(_page_answer(client.http, base.copy_with(raw_path=path.encode())) for path in resource.nginx.pages if base)
    )
    return {path: answer for path, answer in zip(resource.nginx.pages, answers, strict=True) if answer is not None}


async def _page_answer(http: httpx.AsyncClient, url: httpx.URL) -> JsonValue:
    """A status of 400 or more, or what was wrong; None where the page answers well."""
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            response = await http.get(url, headers={"Connection": "close"})
    except TimeoutError:
        return "nothing in time"
    except httpx.HTTPError as error:
        return type(error).__name__
    return response.status_code if response.status_code >= httpx.codes.BAD_REQUEST else None


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
    values |= {"certificate_days_left": None, "certificate_error": None}
    try:
        with usable_address(resource):
            async with asyncio.timeout(deadline_seconds):
                values |= await _get(client.http, resource.address, deadline_seconds)
    except (TimeoutError, httpx.TimeoutException):
        values |= {"page_error": "timeout", "error": f"no page within {deadline_seconds:g} s"}
        if not await _answers_itself(resource.address):
            values["answers"] = "timeout"
    except httpx.ConnectError as error:
        if is_caused_by(error, ssl.SSLError):
            values |= {"page_error": "tls", "error": f"TLS: {error}", "certificate_error": _certificate_error(error)}
        else:
            values |= {"answers": "refused", "error": str(error)}
    except httpx.TransportError as error:
        values |= {"page_error": "broken off", "error": f"the connection was taken and broken off ({type(error).__name__})"}
    return {**values, "page_seconds": round(time.monotonic() - started, 4)}


async def _get(http: httpx.AsyncClient, address: str, deadline_seconds: float) -> dict[str, JsonValue]:
    body = bytearray()
    # A kept connection would hide that no new one is taken.
    async with http.stream("GET", address, headers={"Connection": "close"}, timeout=deadline_seconds) as response:
        days_left = _days_left(response)
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > BODY_BYTES:
                break
    values: dict[str, JsonValue] = {"page_status": response.status_code, "certificate_days_left": days_left}
    if response.status_code < httpx.codes.BAD_REQUEST:
        return {**values, "page_ok": True}
    return {**values, "page_ok": False, "page_from": "nginx" if OWN_PAGE in body else "behind"}


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


def _certificate_error(error: Exception) -> str | None:
    refused = find_cause(error, ssl.SSLCertVerificationError)
    return None if refused is None else CERTIFICATE_ERRORS.get(refused.verify_code, "not trusted")


def _days_left(response: httpx.Response) -> float | None:
    stream = response.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("ssl_object")
    until = None if connection is None else connection.getpeercert().get("notAfter")
    return None if until is None else round((ssl.cert_time_to_seconds(until) - time.time()) / DAY_SECONDS, 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
