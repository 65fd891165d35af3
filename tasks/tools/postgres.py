"""Tools for a PostgreSQL server as a whole: restart, capacity, dead rows."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from psycopg.sql import SQL, Identifier, Literal
from pydantic import Field

from blocks.schema import Kind, Risk
from tasks.clients.config_file import ConfigFile, discard
from tasks.clients.polling import poll
from tasks.clients.postgres import PostgresClient, Row
from tasks.clients.runtime import Runtime, require_runtime
from tasks.core.declare import Growth, NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change

UP_SECONDS = 10.0
MIN_UPTIME_SECONDS = 3.0
VACUUM_SECONDS = 50.0
LOCK_SECONDS = 3.0
LOG_LINES = 3

_START = SQL("""
    SELECT pg_postmaster_start_time() AS started_at, extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime
""")

_SETTING = SQL("""
    SELECT setting::int AS setting, pending_restart, source, current_setting('data_directory') AS data_directory,
           current_setting('superuser_reserved_connections')::int
               + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved
    FROM pg_settings WHERE name = 'max_connections'
""")

# The counts are PostgreSQL's own estimates (n_dead_tup); vacuum_count tells whether a VACUUM was done at all.
_TABLE = SQL("""
    SELECT pg_stat_get_dead_tuples(pg_class.oid) AS dead_rows, pg_stat_get_live_tuples(pg_class.oid) AS live_rows,
           pg_stat_get_vacuum_count(pg_class.oid) AS vacuums
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %(schema)s AND relname = %(table)s AND relkind IN ('r', 'm')
""")


class ScaleConnections(ToolArgs):
    """The new capacity."""

    connections: int = Field(ge=10, le=10_000, description="New max_connections, at most the resource's limits.connections.")


class Vacuum(ToolArgs):
    """Which table."""

    table: str = Field(min_length=1, max_length=63, description="Name of the table.")
    schema_name: str = Field("public", min_length=1, max_length=63, description="Schema of the table.")


@tool(service=Kind.POSTGRES, risk=Risk.DISRUPTIVE, title="Restart the server", timeout_seconds=40, symptoms={"down", "unresponsive"})
async def postgres_restart(client: PostgresClient, args: NoArgs) -> Change:
    """Restart the server: every session is dropped, uncommitted work is rolled back.

    Reads back pg_postmaster_start_time(). Raises NotApplicable when it has only just started, ToolFailed when it does not come up or
    does not let the monitor in, Unreachable or OutcomeUnknown when its runtime does not answer.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    before = await _start_of(client)
    if before is not None and before.uptime_seconds < MIN_UPTIME_SECONDS:
        raise NotApplicable(f"{client.resource.name}: started only {before.uptime_seconds:.1f} s ago; another restart would change nothing")
    after = await _restart(client, runtime, before)
    return Change(before=_described(before), after=_described(after))


# DISRUPTIVE although the change can be taken back: it takes a restart, and so does taking it back.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Change the number of connections",
    timeout_seconds=60,
    symptoms={"connections_exhausted", "connections_high"},
    growth=Growth(argument="connections", measured="connections_max", limit="connections", share="connections_percent"),
    after=("postgres_kill_long_queries", "postgres_terminate_idle"),
)
async def postgres_scale_connections(client: PostgresClient, args: ScaleConnections) -> Change:
    """Set max_connections within the resource's limits and restart; taken back if it does not come up.

    Uses ALTER SYSTEM, reads back pg_settings. `undo` holds the arguments that restore the old value. Raises NotApplicable (nothing
    done) without a limit or a runtime, beyond the limit, at that value already, or where ALTER SYSTEM would have no effect; ToolFailed
    when the server did not come up (the old value is in force again), Unreachable or OutcomeUnknown.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    _require_within_limits(client, args.connections)
    before = await _setting(client)
    _require_possible(client, args.connections, before)
    # Asked before anything is changed: without the runtime there is no restart.
    await runtime.status()
    start = await _start_of(client)
    file = ConfigFile(Path(before["data_directory"]) / "postgresql.auto.conf")
    async with file.locked():
        earlier = file.read().text
        await client.change(SQL("ALTER SYSTEM SET max_connections = {}").format(Literal(args.connections)))
        try:
            await _restart(client, runtime, start)
        except ToolFailed as error:
            _take_back(file, earlier)
            await _restart(client, runtime, start)
            raise ToolFailed(f"{error}; max_connections is {before['setting']} again and the server runs") from error
        except (OutcomeUnknown, Unreachable) as error:
            _take_back(file, earlier)
            raise OutcomeUnknown(f"{error}; the setting was taken back, whether the server restarted is not known") from error
    after = await _setting(client)
    if after["setting"] != args.connections:
        raise ToolFailed(f"{client.resource.name}: restarted, but max_connections is {after['setting']}, set by {after['source']}")
    return Change(
        before={"max_connections": before["setting"]},
        after={"max_connections": after["setting"]},
        undo={"connections": before["setting"]},
    )


# DISRUPTIVE because it can't be taken back and loads the disk, though no data is lost and nobody is locked out but schema changes.
@tool(service=Kind.POSTGRES, risk=Risk.DISRUPTIVE, title="Vacuum a table", timeout_seconds=55, symptoms={"slow"})
async def postgres_vacuum(client: PostgresClient, args: Vacuum) -> Change:
    """Vacuum and analyze one table while it is read and written.

    Reads back `dead_rows`, `live_rows` and `vacuums` (pg_stat_get_dead_tuples and the like). Raises NotApplicable when there is no such
    table or its lock is not to be had within 3 s, ToolFailed when the server skipped it, Unreachable or OutcomeUnknown.
    """
    before = await _table(client, args)
    statement = SQL("VACUUM (ANALYZE) {}").format(Identifier(args.schema_name, args.table))
    await client.change_apart(statement, seconds=VACUUM_SECONDS, lock_seconds=LOCK_SECONDS)
    after = await _table(client, args)
    if after["vacuums"] <= before["vacuums"]:
        raise ToolFailed(f"{client.resource.name}: {args.schema_name}.{args.table} was skipped; the monitor needs the role pg_maintain")
    return Change(before=before, after=after)


class _Start(NamedTuple):
    """One start of the server."""

    at: datetime
    uptime_seconds: float


def _described(start: _Start | None) -> dict[str, str | None]:
    return {"answers": "no" if start is None else "yes", "started_at": None if start is None else start.at.isoformat()}


async def _start_of(client: PostgresClient) -> _Start | None:
    """The current start, None while the server does not answer. ToolFailed where the monitor is not let in."""
    try:
        row = (await client.read(_START))[0]
    except Unreachable:
        return None
    return _Start(row["started_at"], row["uptime"])


async def _restart(client: PostgresClient, runtime: Runtime, before: _Start | None) -> _Start:
    """Restart and wait for an answer of a later start; ToolFailed with the end of the log when there is none."""

    async def later_start() -> _Start | None:
        start = await _start_of(client)
        return start if start is not None and (before is None or start.at > before.at) else None

    await runtime.restart()
    start = await poll(later_start, seconds=UP_SECONDS, every_seconds=0.02)
    if start is None:
        log = " | ".join(await runtime.log(LOG_LINES))
        raise ToolFailed(f"{client.resource.name}: does not answer {UP_SECONDS:g} s after its restart; its log ends: {log}")
    return start


def _require_within_limits(client: PostgresClient, connections: int) -> None:
    limit = client.resource.limits.connections
    if limit is None:
        raise NotApplicable(f"{client.resource.name}: the inventory sets no limit; add `limits.connections` to allow this")
    if connections > limit:
        raise NotApplicable(f"{client.resource.name}: {connections} is beyond limits.connections, {limit}")


def _require_possible(client: PostgresClient, connections: int, setting: Row) -> None:
    name = client.resource.name
    if setting["setting"] == connections and not setting["pending_restart"]:
        raise NotApplicable(f"{name}: max_connections is {connections} already")
    if setting["source"] == "command line":
        raise NotApplicable(f"{name}: max_connections is set on the command line, which overrides every file; change it there")
    if connections <= setting["reserved"]:
        raise NotApplicable(f"{name}: {setting['reserved']} connections are reserved; max_connections has to be more than that")


async def _setting(client: PostgresClient) -> Row:
    return (await client.read(_SETTING))[0]


def _take_back(file: ConfigFile, earlier: str) -> None:
    """Put max_connections back to what the file held, and leave every other setting as it is now."""
    content = file.read()
    kept = [line for line in content.text.splitlines(keepends=True) if not _sets_connections(line)]
    put_back = [line for line in earlier.splitlines(keepends=True) if _sets_connections(line)]
    draft = file.draft("".join(kept + put_back), content)
    try:
        file.put(draft)
    finally:
        discard(draft)


def _sets_connections(line: str) -> bool:
    return line.partition("=")[0].strip() == "max_connections"


async def _table(client: PostgresClient, args: Vacuum) -> Row:
    rows = await client.read(_TABLE, {"schema": args.schema_name, "table": args.table})
    if not rows:
        raise NotApplicable(f"{client.resource.name}: no table {args.schema_name}.{args.table} in this database")
    return rows[0]
