"""What PostgreSQL's readings say is wrong. Pure."""

from collections.abc import Iterator

from pydantic import JsonValue

from blocks.schema import Resource, Thresholds
from tasks.clients.postgres_silence import Reason
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number, part


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, causes before what follows from them; values that are missing or no numbers say nothing."""
    values = reading.values
    answers = values.get("answers")
    if answers != "yes":
        return tuple(_silent(answers, values))
    thresholds = resource.thresholds
    return (
        *_symptom(values),
        *_refusals(values),
        *_explanations(values, thresholds),
        *_latency(values, thresholds),
        *_upkeep(values, thresholds),
    )


def _silent(answers: JsonValue, values: Values) -> Iterator[Finding]:
    error = values.get("answers_error") or "no details"
    if answers == Reason.REFUSED:
        yield failed("down", f"refuses connections ({error})")
    elif answers == Reason.TIMEOUT:
        yield failed("unresponsive", f"does not answer ({error})")
    elif answers == Reason.STARTING:
        yield failed("starting", f"starts or stops and lets nobody in ({error})")


def _symptom(values: Values) -> Iterator[Finding]:
    error = values.get("select_error") or values.get("answers_error") or "no details"
    reason = values.get("select_reason")
    if reason == Reason.FULL or (values.get("monitor_refused") is True and values.get("select_ok") is not True) or _is_full(values):
        summary = f"no connection is left for the application ({error})"
        yield failed("connections_exhausted", summary)
    elif values.get("select_ok") is not False:
        return
    elif reason in {Reason.TIMEOUT, Reason.REFUSED}:
        yield failed("unresponsive", f"lets no new session in ({error})")
    elif reason == Reason.STARTING:
        yield failed("starting", f"starts or stops and lets nobody in ({error})")
    else:
        yield failed("application_refused", f"refuses the application ({error})")


def _is_full(values: Values) -> bool:
    """Whether the application was refused while its connections were used up, whatever language the server says so in."""
    used, most, reserved = (number(values, f"connections_{name}") for name in ("used", "max", "reserved"))
    if values.get("select_reason") != Reason.LOGIN or used is None or most is None:
        return False
    return used >= most - (reserved or 0)


def _explanations(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    waited = number(values, "longest_blocked_seconds")
    if waited is not None and waited >= thresholds.blocked_seconds:
        summary = f"{values.get('blocked_count')} session(s) wait for a lock, the longest for {waited:.1f} s"
        yield degraded("lock_wait", summary)
    idle = number(values, "oldest_idle_in_transaction_seconds")
    if idle is not None and idle >= thresholds.idle_in_transaction_seconds:
        application = values.get("oldest_idle_in_transaction_application") or "an unnamed application"
        summary = f"{application} has been idle in a transaction for {idle:.1f} s"
        yield degraded("idle_in_transaction", summary)
    percent = number(values, "connections_percent")
    if percent is not None and percent >= thresholds.connections_percent:
        used, most = values.get("connections_used"), values.get("connections_max")
        summary = f"{used} of {most} connections in use ({percent:g} %, threshold {thresholds.connections_percent:g} %)"
        yield degraded("connections_high", summary)


def _refusals(values: Values) -> Iterator[Finding]:
    """What the application is let in for and then refused, and pages that can't be read any more."""
    # A standby is read-only by nature.
    if values.get("read_only") is True and values.get("in_recovery") is not True:
        source = values.get("read_only_source")
        summary = f"writes are refused: transactions are read-only (default_transaction_read_only comes from: {source})"
        yield failed("read_only", summary)
    lost = values.get("privileges_missing")
    names = [_described(item) for item in lost if isinstance(item, dict)] if isinstance(lost, list) else []
    if names:
        summary = f"the application lacks {', '.join(names)}, although it owns that"
        yield failed("privilege_missing", summary)
    damaged = number(values, "damaged_pages")
    if damaged is not None and damaged > 0:
        summary = f"{damaged:g} reading(s) of a page failed its checksum: data on the disk is damaged"
        yield failed("pages_damaged", summary)


def _described(lost: Values) -> str:
    name = lost.get("schema") if lost.get("kind") == "schema" else f"{lost.get('schema')}.{lost.get('name')}"
    return f"{lost.get('privilege')} on {lost.get('kind')} {name}"


def _latency(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    seconds = number(values, "select_seconds")
    if seconds is not None and seconds >= thresholds.latency_seconds:
        summary = f"a SELECT as the application took {seconds:.2f} s (threshold {thresholds.latency_seconds:g} s)"
        yield degraded("slow", summary)


def _upkeep(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    """What is in the way of others, or will be."""
    query = part(values, "longest_query")
    seconds = number(query, "seconds")
    if seconds is not None and seconds >= thresholds.query_seconds:
        application = query.get("application_name") or "an unnamed application"
        summary = f"a statement of {application} has been running for {seconds:.1f} s (threshold {thresholds.query_seconds:g} s)"
        yield degraded("long_query", summary)
    table = part(values, "scanned_table")
    rate = number(table, "scans_per_second")
    if rate is not None and rate >= thresholds.scans_per_second:
        summary = f"{table.get('schema')}.{table.get('name')} with {table.get('rows')} rows is read whole {rate:g} times a second"
        yield degraded("table_scans", summary)
    bloated = part(values, "bloated_table")
    percent = number(bloated, "dead_percent")
    if percent is not None and percent >= thresholds.dead_rows_percent:
        name = f"{bloated.get('schema')}.{bloated.get('name')}"
        summary = f"{percent:g} % of the rows of {name} are dead, and autovacuum is {bloated.get('autovacuum')}"
        yield degraded("dead_rows", summary)
    slot = part(values, "idle_slot")
    retained = number(slot, "retained_mib")
    if retained is not None and retained >= thresholds.retained_wal_mib:
        summary = f"nobody reads the replication slot {slot.get('name')}, which keeps {retained:g} MiB of WAL"
        yield degraded("wal_retained", summary)
