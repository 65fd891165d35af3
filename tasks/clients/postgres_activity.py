"""What the sessions of a PostgreSQL server are doing, asked in one statement."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from psycopg.sql import SQL, Literal
from pydantic import JsonValue

from tasks.clients.postgres_upkeep import UPKEEP

APPLICATION_NAME = "evenkeel"
"""What this project's own sessions are called."""

# A statement's text without its literals, which may hold anybody's data; equal statements then count as one.
FINGERPRINT = SQL(
    r"""left(regexp_replace(regexp_replace(
        left(query, 1024), '''[^'']*(''|$)|(?<!\$)\m[0-9]+(\.[0-9]+)?\M', '?', 'g'), '\s+', ' ', 'g'), 120)"""
)

BACKUPS = ("pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup")
"""Programs whose sessions are long by nature; nothing ends them unless it names them."""

# How long a session has been in its state; for an active one, how long its statement has been running.
AGE_SECONDS = SQL(
    "coalesce(extract(epoch FROM clock_timestamp() - CASE WHEN state = 'active' THEN query_start ELSE state_change END), 0)::float8"
)

# An aborted transaction that stays open holds its locks like any other.
STATE = SQL("CASE WHEN starts_with(state, 'idle in transaction') THEN 'idle in transaction' ELSE coalesce(state, 'unknown') END")

_SESSIONS = SQL("""
WITH RECURSIVE sessions AS MATERIALIZED (
    SELECT pid, coalesce(usename, '') AS "user", coalesce(application_name, '') AS application_name, {state} AS state,
           {seconds} AS seconds, coalesce(state = 'active' AND wait_event_type = 'Lock', false) AS blocked, {query} AS query
    FROM pg_stat_activity WHERE backend_type = 'client backend'
), others AS (
    SELECT * FROM sessions WHERE pid <> pg_backend_pid()
), groups AS (
    SELECT application_name, "user", state, count(*) AS count, round(max(seconds)::numeric, 3) AS oldest_seconds,
           round(min(seconds)::numeric, 3) AS youngest_seconds,
           round((percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds))::numeric, 3) AS median_seconds,
           count(*) FILTER (WHERE blocked) AS blocked, (array_agg(query ORDER BY seconds DESC))[1] AS query
    FROM others GROUP BY application_name, "user", state, CASE WHEN state = 'active' THEN query END
    ORDER BY count(*) DESC, max(seconds) DESC LIMIT 8
), waiting AS MATERIALIZED (
    SELECT pid, coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 AS seconds
    FROM pg_locks WHERE NOT granted AND (SELECT bool_or(blocked) FROM sessions) GROUP BY pid
), chain(pid, depth) AS (
    (SELECT pid, 0 FROM waiting ORDER BY seconds DESC LIMIT 1)
    UNION
    SELECT unnest(pg_blocking_pids(chain.pid)), depth + 1 FROM chain WHERE depth < 8
), blocker AS (
    SELECT others.* FROM chain JOIN others USING (pid) WHERE pid NOT IN (SELECT pid FROM waiting) ORDER BY depth LIMIT 1
), idle_transaction AS (
    SELECT * FROM others WHERE state = 'idle in transaction' AND application_name <> ALL({backups}) ORDER BY seconds DESC LIMIT 1
), longest_query AS (
    -- One that waits for a lock is no runaway; repairs by the monitor's own kind have a deadline of their own.
    SELECT pid, application_name, "user", seconds, query FROM others
    WHERE state = 'active' AND NOT blocked AND application_name <> ALL({backups}) AND application_name <> {own}
    ORDER BY seconds DESC LIMIT 1
), longest AS (
    SELECT * FROM others WHERE state <> 'idle' ORDER BY seconds DESC LIMIT 5
)""").format(state=STATE, seconds=AGE_SECONDS, query=FINGERPRINT, backups=Literal(list(BACKUPS)), own=Literal(APPLICATION_NAME))

_VALUES = SQL("""
    current_setting('max_connections')::int AS connections_max,
    current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0)
        AS connections_reserved,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sessions_visible,
    (SELECT count(*) FROM sessions) AS connections_used,
    (SELECT max(seconds) FROM others WHERE state = 'active') AS longest_query_seconds,
    (SELECT to_jsonb(longest_query) FROM longest_query) AS longest_query,
    (SELECT count(*) FROM others WHERE state = 'idle in transaction') AS idle_in_transaction_count,
    (SELECT seconds FROM idle_transaction) AS oldest_idle_in_transaction_seconds,
    (SELECT application_name FROM idle_transaction) AS oldest_idle_in_transaction_application,
    (SELECT "user" FROM idle_transaction) AS oldest_idle_in_transaction_user,
    (SELECT count(*) FROM waiting) AS blocked_count,
    (SELECT max(seconds) FROM waiting) AS longest_blocked_seconds,
    (SELECT to_jsonb(blocker) FROM blocker) AS blocker,
    (SELECT coalesce(jsonb_agg(to_jsonb(groups)), '[]') FROM groups) AS top_sessions,
    {upkeep}, pg_postmaster_start_time() AS started_at, clock_timestamp() AS measured_at""").format(upkeep=UPKEEP)

ACTIVITY = SQL("{} SELECT {}").format(_SESSIONS, _VALUES)
"""One row: what the probe reads, see `tasks.probes.postgres`."""

ACTIVITY_WITH_LONGEST = SQL("{} SELECT {}, (SELECT coalesce(jsonb_agg(to_jsonb(longest)), '[]') FROM longest) AS longest").format(
    _SESSIONS, _VALUES
)
"""The same with `longest`: the five sessions, idle ones apart, that have been in their state for longest."""


def as_values(row: Mapping[str, Any]) -> dict[str, JsonValue]:
    """A row as it is shown: seconds to the millisecond, times in UTC as ISO 8601."""
    return {name: _as_value(value) for name, value in row.items()}


def _as_value(value: Any) -> JsonValue:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return round(value, 3) if isinstance(value, float) else value
