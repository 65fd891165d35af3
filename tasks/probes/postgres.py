"""PostgreSQL: a SELECT as the application is the symptom, its sessions explain it."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.postgres import PostgresClient
from tasks.clients.postgres_activity import ACTIVITY, as_values
from tasks.clients.postgres_log import refused_setting
from tasks.clients.postgres_silence import NoAnswer, Reason
from tasks.clients.postgres_upkeep import APPLICATION
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.core.models import Reading
from tasks.probes.postgres_judgement import judge

# A SELECT that takes longer than the latency threshold is slow; one that takes this long counts as never answered.
SELECT_SECONDS = 2.5
RUNTIME_SECONDS = 1.0
LOG_LINES = 60
T = TypeVar("T")


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
    - `answers`: yes, refused, timeout (none within 1 s) or starting. Unless it is yes, there are only `answers_error`,
      `runtime_state` (running, stopped or exited, as the runtime sees the process) and `refused_setting`, the setting for which the
      server's log says that it does not start.
    - `sessions_visible`: whether the role sees the sessions of others (pg_read_all_stats); if not, the figures below are its own only.
    - `connections_used` (client backends in pg_stat_activity), `connections_max` (max_connections), `connections_reserved`
      (superuser_reserved_connections + reserved_connections), `connections_percent` of the maximum.
    - `longest_query_seconds`, `longest_query` (that of a client that does not wait for a lock, backups apart: pid, application_name, user,
      seconds, query), `idle_in_transaction_count`, `oldest_idle_in_transaction_seconds`, `_application` and `_user`
      (pg_stat_activity: query_start and state_change).
    - `blocked_count`, `longest_blocked_seconds` (pg_locks.waitstart) and `blocker`: the session at the root of the longest wait
      (pg_blocking_pids) with pid, application_name, user, state, seconds and query.
    - `top_sessions`: the 8 largest groups of sessions with the same application_name, user, state and, if active, query: count, blocked
      (how many wait for a lock), oldest_seconds, median_seconds, youngest_seconds in that state, query without its literals.
    - `idle_slot`: the replication slot without a reader that keeps most WAL, in MiB (pg_replication_slots). `bloated_table`: the table with
      most dead rows among those that autovacuum passes by. `scanned_table`: the large table that was read whole most often since a
      reading of three seconds ago or more. `damaged_pages`: checksum failures (pg_stat_database).
    - `started_at`, `measured_at`: ISO 8601, by the server's own clock (pg_postmaster_start_time, clock_timestamp).
    - `select_ok`, `select_seconds`, `select_reason`, `select_error`: a fresh connection as the application and a SELECT, which tells
      `read_only`, `in_recovery`, `read_only_source` and `privileges_missing` (rights to what the application owns).

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
    if values.get("sessions_visible") is False and values.get("select_ok") is not False:
        return {"broken": "the monitor's role can't see the sessions of others; GRANT pg_monitor to it"}
    return values


async def _activity(client: PostgresClient) -> dict[str, JsonValue]:
    """What the monitor sees, or why it sees nothing."""
    try:
        row = (await client.ask(ACTIVITY))[0]
    except TimeoutError:
        return {"broken": "the monitoring connection is busy"}
    except NoAnswer as error:
        if error.reason in {Reason.REFUSED, Reason.TIMEOUT, Reason.STARTING}:
            return {"answers": error.reason.value, "answers_error": str(error), **await _runtime_view(client)}
        if error.reason is Reason.FULL:
            # That is an answer. Servers that keep no connections for the monitor give it.
            return {"answers": "yes", "answers_error": str(error), "monitor_refused": True}
        return {"broken": str(error)}
    values = as_values(row)
    values.pop("scanned_tables")
    values["scanned_table"] = client.scans.busiest(row["scanned_tables"], asyncio.get_running_loop().time())
    values["connections_percent"] = round(100 * row["connections_used"] / row["connections_max"], 2)
    return {"answers": "yes"} | values


async def _runtime_view(client: PostgresClient) -> dict[str, JsonValue]:
    """State of the server's process as its runtime sees it, and what its log says of a start that failed; None where nobody can tell."""
    runtime = client.runtime
    if runtime is None:
        return {"runtime_state": None, "refused_setting": None}
    status, log = await asyncio.gather(_in_time(runtime.status()), _in_time(runtime.log(LOG_LINES)))
    return {
        "runtime_state": None if status is None else status.state,
        "refused_setting": None if log is None else refused_setting(log),
    }


async def _in_time(answer: Awaitable[T]) -> T | None:
    """The answer; None where there is none: a runtime that does not answer is a value that is missing, and no broken probe."""
    try:
        async with asyncio.timeout(RUNTIME_SECONDS):
            return await answer
    except (EvenkeelError, TimeoutError):
        return None


async def _select(client: PostgresClient) -> dict[str, JsonValue]:
    """The symptom; nothing where the inventory names no application login."""
    if client.application is None:
        return {}
    try:
        row, seconds = await client.select_as_application(APPLICATION, SELECT_SECONDS)
    except NoAnswer as error:
        return {"select_ok": False, "select_reason": error.reason.value, "select_error": str(error)}
    return {"select_ok": True, "select_seconds": round(seconds, 4), **as_values(row)}
