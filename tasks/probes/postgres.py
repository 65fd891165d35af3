"""PostgreSQL: a SELECT as the application is the symptom, its sessions explain it."""

import asyncio
import math
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from blocks.schema import Kind, Resource, Thresholds
from tasks.clients.postgres import PostgresClient
from tasks.clients.postgres_activity import ACTIVITY, as_values
from tasks.clients.postgres_silence import NoAnswer, Reason
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.core.models import Finding, Health, Reading

# A SELECT that takes longer than the latency threshold is slow; one that takes this long counts as never answered.
SELECT_SECONDS = 2.5
RUNTIME_SECONDS = 0.5

Values = Mapping[str, JsonValue]


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, causes before what follows from them; values that are missing or no numbers say nothing."""
    values = reading.values
    answers = values.get("answers")
    if answers != "yes":
        return tuple(_silent(answers, values))
    return (*_symptom(values), *_explanations(values, resource.thresholds), *_latency(values, resource.thresholds))


@probe(
    service=Kind.POSTGRES,
    title="PostgreSQL connections, sessions and locks",
    judge=judge,
    headline="connections_percent",
    timeout_seconds=3,
    trends={"connections_percent": "connections_high"},
)
async def measure(client: PostgresClient, resource: Resource) -> Reading:
    """Connections in use, long, idle-in-transaction and blocked sessions, and a SELECT as the application.

    Values, in seconds and percent as their names say:
    - `answers`: yes, refused, timeout (none within 1 s) or starting. Unless it is yes, there are only `answers_error` and
      `runtime_state` (running, stopped or exited, as the runtime sees the process).
    - `connections_used` (client backends in pg_stat_activity), `connections_max` (max_connections), `connections_reserved`
      (superuser_reserved_connections + reserved_connections), `connections_percent` of the maximum.
    - `longest_query_seconds`, `idle_in_transaction_count`, `oldest_idle_in_transaction_seconds`, `_application` and `_user`
      (pg_stat_activity: query_start and state_change).
    - `blocked_count`, `longest_blocked_seconds` (pg_locks.waitstart) and `blocker`: the session at the root of the longest wait
      (pg_blocking_pids) with pid, application_name, user, state, seconds and query.
    - `top_sessions`: the 8 largest groups of sessions with the same application_name, user, state and, if active, query: count, blocked
      (how many wait for a lock), oldest_seconds, median_seconds, youngest_seconds in that state, query without its literals.
    - `started_at`, `measured_at`: ISO 8601, by the server's own clock (pg_postmaster_start_time, clock_timestamp).
    - `select_ok`, `select_seconds`, `select_reason`, `select_error`: a fresh connection as the application and a SELECT.

    Raises ProbeBroken when the monitor's own login is refused.
    """
    values = await client.measured.get(lambda: _measure(client))
    broken = values.get("broken")
    if broken is not None:
        raise ProbeBroken(f"{resource.name}: {broken}")
    return Reading(values=values)


async def _measure(client: PostgresClient) -> dict[str, JsonValue]:
    """Both views at once; `broken` says that the probe can't measure."""
    check = asyncio.create_task(_select(client))
    try:
        values = await _activity(client)
        if values.get("answers") == "yes":
            values |= await check
    finally:
        if not check.done():
            check.cancel()
            await asyncio.wait({check})
    if values.get("monitor_refused") and values.get("select_ok"):
        return {"broken": f"no connection is left for the monitor, while the application gets one ({values['answers_error']})"}
    return values


async def _activity(client: PostgresClient) -> dict[str, JsonValue]:
    """What the monitor sees, or why it sees nothing."""
    try:
        row = (await client.ask(ACTIVITY))[0]
    except TimeoutError:
        return {"broken": "the monitoring connection is busy"}
    except NoAnswer as error:
        if error.reason in {Reason.REFUSED, Reason.TIMEOUT, Reason.STARTING}:
            return {"answers": error.reason.value, "answers_error": str(error), "runtime_state": await _runtime_state(client)}
        if error.reason is Reason.FULL:
            # That is an answer. Servers that keep no connections for the monitor give it.
            return {"answers": "yes", "answers_error": str(error), "monitor_refused": True}
        return {"broken": str(error)}
    values = as_values(row)
    values["connections_percent"] = round(100 * row["connections_used"] / row["connections_max"], 2)
    return {"answers": "yes"} | values


async def _runtime_state(client: PostgresClient) -> str | None:
    """State of the server's process as its runtime sees it; None where nobody can tell."""
    if client.runtime is None:
        return None
    try:
        async with asyncio.timeout(RUNTIME_SECONDS):
            return (await client.runtime.status()).state
    except (EvenkeelError, TimeoutError):
        return None


async def _select(client: PostgresClient) -> dict[str, JsonValue]:
    """The symptom; nothing where the inventory names no application login."""
    if client.application is None:
        return {}
    try:
        seconds = await client.select_as_application(SELECT_SECONDS)
    except NoAnswer as error:
        return {"select_ok": False, "select_reason": error.reason.value, "select_error": str(error)}
    return {"select_ok": True, "select_seconds": round(seconds, 4)}


def _silent(answers: JsonValue, values: Values) -> Iterator[Finding]:
    error = values.get("answers_error") or "no details"
    if answers == Reason.REFUSED:
        yield Finding(symptom="down", health=Health.FAILED, summary=f"refuses connections ({error})")
    elif answers == Reason.TIMEOUT:
        yield Finding(symptom="unresponsive", health=Health.FAILED, summary=f"does not answer ({error})")
    elif answers == Reason.STARTING:
        yield Finding(symptom="starting", health=Health.FAILED, summary=f"starts or stops and lets nobody in ({error})")


def _symptom(values: Values) -> Iterator[Finding]:
    error = values.get("select_error") or values.get("answers_error") or "no details"
    reason = values.get("select_reason")
    if reason == Reason.FULL or (values.get("monitor_refused") is True and values.get("select_ok") is not True) or _is_full(values):
        summary = f"no connection is left for the application ({error})"
        yield Finding(symptom="connections_exhausted", health=Health.FAILED, summary=summary)
    elif values.get("select_ok") is not False:
        return
    elif reason in {Reason.TIMEOUT, Reason.REFUSED}:
        yield Finding(symptom="unresponsive", health=Health.FAILED, summary=f"lets no new session in ({error})")
    elif reason == Reason.STARTING:
        yield Finding(symptom="starting", health=Health.FAILED, summary=f"starts or stops and lets nobody in ({error})")
    else:
        yield Finding(symptom="application_refused", health=Health.FAILED, summary=f"refuses the application ({error})")


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
        yield Finding(symptom="lock_wait", health=Health.DEGRADED, summary=summary)
    idle = number(values, "oldest_idle_in_transaction_seconds")
    if idle is not None and idle >= thresholds.idle_in_transaction_seconds:
        application = values.get("oldest_idle_in_transaction_application") or "an unnamed application"
        summary = f"{application} has been idle in a transaction for {idle:.1f} s"
        yield Finding(symptom="idle_in_transaction", health=Health.DEGRADED, summary=summary)
    percent = number(values, "connections_percent")
    if percent is not None and percent >= thresholds.connections_percent:
        used, most = values.get("connections_used"), values.get("connections_max")
        summary = f"{used} of {most} connections in use ({percent:g} %, threshold {thresholds.connections_percent:g} %)"
        yield Finding(symptom="connections_high", health=Health.DEGRADED, summary=summary)


def _latency(values: Values, thresholds: Thresholds) -> Iterator[Finding]:
    seconds = number(values, "select_seconds")
    if seconds is not None and seconds >= thresholds.latency_seconds:
        summary = f"a SELECT as the application took {seconds:.2f} s (threshold {thresholds.latency_seconds:g} s)"
        yield Finding(symptom="slow", health=Health.DEGRADED, summary=summary)


def number(values: Values, name: str) -> float | None:
    """A finite number among the values, or None."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
