"""What is wrong with a Memorystore instance, from its reading alone."""

from collections.abc import Iterator

from blocks.schema import Resource, Thresholds
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number, part, text

AT_WORK = {
    "CREATING": "creates it",
    "UPDATING": "changes it",
    "REPAIRING": "repairs it",
    "MAINTENANCE": "maintains it",
    "IMPORTING": "imports data into it",
    "FAILING_OVER": "fails it over to its replica",
}
"""State of the API -> what Google is doing just then."""


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding.

    While Google works on an instance nothing else counts: connections drop meanwhile, and the API refuses every change.
    """
    values = reading.values
    state = text(values, "state")
    if state in AT_WORK:
        return (degraded("in_transition", f"Google {AT_WORK[state]} ({state}); that ends by itself"),)
    if state != "READY":
        return (failed("not_running", f"its state is {state} {text(values, 'message') or ''}".rstrip()),)
    if values.get("answers") == "refused":
        return (failed("down", f"the API calls it READY, and it accepts no connection: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        return (failed("unresponsive", f"the API calls it READY, and it gives no answer: {values.get('error')}"),)
    return (*_write(values), *_memory(values, resource.thresholds), *_clients(values, resource.thresholds), *_latency(values, resource))


def _write(values: Values) -> Iterator[Finding]:
    if values.get("write_ok") is False:
        yield failed("write_refused", f"a write of 20 KB is refused: {values.get('write_error')}")


def _memory(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    share = number(values, "memory_percent")
    if share is None or share < thresholds.memory_percent:
        return
    used, limit = values.get("used_memory_mib"), values.get("maxmemory_mib")
    of = f"{used} of {limit} MiB" if used is not None else f"{values.get('memory_gib')} GiB"
    yield degraded(
        "memory_high", f"memory at {share:.1f} % ({of}, threshold {thresholds.memory_percent:g} %){_source(values, 'memory_percent')}"
    )


def _clients(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    if values.get("clients_full") is True:
        yield failed("clients_exhausted", "it turns new clients away: maxclients is reached")
        return
    share = number(values, "clients_percent")
    if share is None or share < thresholds.clients_percent:
        return
    figures = f"({values.get('connected_clients')} of {values.get('maxclients')}, threshold {thresholds.clients_percent:g} %)"
    yield degraded("clients_high", f"clients at {share:.1f} % of maxclients {figures}")


def _latency(values: Values, resource: Resource) -> Iterator[Finding]:
    latency, threshold = number(values, "latency_seconds"), resource.thresholds.latency_seconds
    if latency is not None and latency >= threshold:
        yield degraded("slow", f"it took {latency:.3f} s to answer (threshold {threshold:g} s)")


def _source(values: Values, name: str) -> str:
    source = text(part(values, "sources"), name)
    return f", {source}" if source is not None and "Monitoring" in source else ""
