"""How an HTTP service is measured and judged: by the page that its address names."""

import asyncio
import json
import ssl
import time

import httpx
from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.causes import is_caused_by
from tasks.clients.web import WebClient, usable_address
from tasks.core.declare import probe
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, items, number, part

ANSWER_SECONDS = 1.5
BODY_BYTES = 64 * 1024


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    if values.get("answers") == "refused":
        return (failed("down", f"the service accepts no connection: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        return (failed("unresponsive", f"the service gave no answer within {ANSWER_SECONDS:g} s"),)
    found = (_page(values), _latency(values, resource))
    return tuple(finding for finding in found if finding is not None)


@probe(service=Kind.HTTP, title="HTTP service", judge=judge, headline="latency_seconds", timeout_seconds=2)
async def measure(client: WebClient, resource: Resource) -> Reading:
    """Measure an HTTP service: GET its address.

    Values:
      answers               "yes", "refused" (no connection) or "timeout" (no whole answer within 1.5 s); `error` says more
      status_code           of the answer; null where the certificate or the protocol is wrong, see `error`
      latency_seconds       until the whole answer was read
      dependencies          name -> "ok" or what is wrong with it, where the body is JSON and tells: an object `dependencies` of
                            name -> true, false, or an object with `ok` (and `error`); of the first 64 KiB
      failing_dependencies  names of those that are not ok

    ProbeBroken: the address is no URL, or its name does not resolve.
    """
    started = time.monotonic()
    try:
        with usable_address(resource):
            async with asyncio.timeout(ANSWER_SECONDS):
                values = await _get(client.http, resource)
    except (TimeoutError, httpx.TimeoutException):
        values = {"answers": "timeout"}
    except httpx.ConnectError as error:
        if is_caused_by(error, ssl.SSLError):
            values = {"answers": "yes", "status_code": None, "error": f"TLS: {error}"}
        else:
            values = {"answers": "refused", "error": str(error)}
    except httpx.TransportError as error:
        # It took the connection and broke it off.
        values = {"answers": "yes", "status_code": None, "error": f"{type(error).__name__}: {error}"}
    return Reading(values={**values, "latency_seconds": round(time.monotonic() - started, 4)})


async def _get(http: httpx.AsyncClient, resource: Resource) -> dict[str, JsonValue]:
    body = bytearray()
    async with http.stream("GET", resource.address) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > BODY_BYTES:
                break
    dependencies = _dependencies(bytes(body))
    failing: list[JsonValue] = [name for name, state in dependencies.items() if state != "ok"]
    return {
        "answers": "yes",
        "status_code": response.status_code,
        "dependencies": dependencies,
        "failing_dependencies": failing,
    }


def _dependencies(body: bytes) -> dict[str, JsonValue]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    told = document.get("dependencies") if isinstance(document, dict) else None
    if not isinstance(told, dict):
        return {}
    states: dict[str, JsonValue] = {}
    for name, state in told.items():
        is_well = state.get("ok") if isinstance(state, dict) else state
        if isinstance(is_well, bool):
            reason = state.get("error") if isinstance(state, dict) else None
            states[name[:60]] = "ok" if is_well else str(reason or "failing")[:200]
    return states


def _page(values: Values) -> Finding | None:
    status, error = values.get("status_code"), values.get("error")
    if error is not None:
        return failed("page_failing", f"the page can't be read: {error}")
    if not isinstance(status, int) or status < httpx.codes.BAD_REQUEST:
        return None
    said = failed if status >= httpx.codes.INTERNAL_SERVER_ERROR else degraded
    return said("page_failing", f"the page answers {status}{_reasons(values)}")


def _reasons(values: Values) -> str:
    failing, told = items(values, "failing_dependencies"), part(values, "dependencies")
    if not failing:
        return ""
    return ": its " + ", ".join(f"{name} is failing ({told.get(str(name), 'failing')})" for name in failing)


def _latency(values: Values, resource: Resource) -> Finding | None:
    latency, threshold = number(values, "latency_seconds"), resource.thresholds.latency_seconds
    if latency is None or latency < threshold:
        return None
    return degraded("slow", f"the page took {latency:.2f} s (threshold {threshold:g} s)")
