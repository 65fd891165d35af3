"""What is wrong with a Cloud SQL instance, from its reading alone."""

from collections.abc import Iterator

from blocks.schema import Resource, Thresholds
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number, part, text

AT_WORK = {
    "PENDING_CREATE": "creates it",
    "MAINTENANCE": "maintains it",
    "ONLINE_MAINTENANCE": "maintains it",
    "REPAIRING": "repairs it",
}
"""State of the API -> what Google is doing just then."""


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, causes before what follows from them; values that are missing or no numbers say nothing."""
    values = reading.values
    state, operation, answers = text(values, "state"), text(values, "operation"), text(values, "answers")
    if state in AT_WORK:
        return (degraded("in_transition", f"Google {AT_WORK[state]} ({state}); that ends by itself"),)
    if values.get("activation") == "NEVER" or state != "RUNNABLE":
        stopped = values.get("activation") == "NEVER"
        return (failed("not_running", "it was stopped (activation policy NEVER)" if stopped else f"its state is {state}"),)
    if operation is not None and answers not in {"yes", None}:
        return (degraded("in_transition", f"an operation {operation} is under way, and the database does not answer meanwhile"),)
    if answers not in {"yes", None}:
        return tuple(_silent(values))
    thresholds = resource.thresholds
    return (*_symptom(values), *_connections(values, thresholds), *_load(values, thresholds), *_slowness(values, thresholds))


def _silent(values: Values) -> Iterator[Finding]:
    error = values.get("answers_error") or "no details"
    if values.get("answers") == "refused":
        yield failed("down", f"the API calls it RUNNABLE, and its database refuses connections ({error})")
    elif values.get("answers") == "timeout":
        yield failed("unresponsive", f"the API calls it RUNNABLE, and its database does not answer ({error})")
    elif values.get("answers") == "starting":
        yield failed("starting", f"its database starts or stops and lets nobody in ({error})")


def _symptom(values: Values) -> Iterator[Finding]:
    error = values.get("select_error") or values.get("answers_error") or "no details"
    reason = text(values, "select_reason")
    is_full = reason == "full" or (values.get("monitor_refused") is True and values.get("select_ok") is not True)
    if is_full or (reason == "login" and _is_used_up(values)):
        yield failed("connections_exhausted", f"no connection is left for the application ({error})")
    elif values.get("select_ok") is not False:
        return
    elif reason in {"timeout", "refused"}:
        yield failed("unresponsive", f"lets no new session in ({error})")
    elif reason == "starting":
        yield failed("starting", f"starts or stops and lets nobody in ({error})")
    else:
        yield failed("application_refused", f"refuses the application ({error})")


def _is_used_up(values: Values) -> bool:
    """Whether the application was refused while its connections were used up, whatever language the server says so in."""
    used, most, reserved = (number(values, f"connections_{name}") for name in ("used", "max", "reserved"))
    return used is not None and most is not None and used >= most - (reserved or 0)


def _connections(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    percent = number(values, "connections_percent")
    if percent is not None and percent >= thresholds.connections_percent:
        used, most = values.get("connections_used"), values.get("connections_max")
        told = f"{used} of {most} connections in use ({percent:g} %, threshold {thresholds.connections_percent:g} %)"
        yield degraded("connections_high", f"{told}{_of(values, 'connections')}")
    query = part(values, "longest_query")
    seconds = number(query, "seconds")
    if seconds is not None and seconds >= thresholds.query_seconds:
        application = query.get("application_name") or "an unnamed application"
        yield degraded(
            "long_query", f"a statement of {application} has been running for {seconds:.1f} s (threshold {thresholds.query_seconds:g} s)"
        )


def _load(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    disk = number(values, "disk_percent")
    if disk is not None and disk >= thresholds.disk_percent:
        size = values.get("storage_gib")
        told = f"disk at {disk:.1f} % of {size} GiB (threshold {thresholds.disk_percent:g} %){_of(values, 'disk_percent')}"
        yield degraded("disk_high", told)
    cpu = number(values, "cpu_percent")
    if cpu is not None and cpu >= thresholds.cpu_percent:
        yield degraded("cpu_high", f"CPU at {cpu:.1f} % (threshold {thresholds.cpu_percent:g} %){_of(values, 'cpu_percent')}")
    memory = number(values, "memory_percent")
    if memory is not None and memory >= thresholds.memory_percent:
        told = (
            f"memory at {memory:.1f} % of {values.get('tier')} (threshold {thresholds.memory_percent:g} %){_of(values, 'memory_percent')}"
        )
        yield degraded("memory_high", told)


def _slowness(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    seconds = number(values, "select_seconds")
    if seconds is not None and seconds >= thresholds.latency_seconds:
        yield degraded("slow", f"a SELECT as the application took {seconds:.2f} s (threshold {thresholds.latency_seconds:g} s)")


def _of(values: Values, name: str) -> str:
    """Where a value comes from, if not from the server itself."""
    source = text(part(values, "sources"), name)
    return f", {source}" if source is not None and "Monitoring" in source else ""
