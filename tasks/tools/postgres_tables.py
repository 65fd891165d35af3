"""Tools for one table of a PostgreSQL database: how it is used, dead rows, a missing index."""

from collections.abc import Mapping
from typing import Annotated

from psycopg.sql import SQL, Identifier
from pydantic import Field, JsonValue, StringConstraints

from blocks.schema import Kind, Risk
from tasks.clients.postgres import PostgresClient, Row
from tasks.clients.postgres_activity import AGE_SECONDS, FINGERPRINT
from tasks.clients.postgres_upkeep import AUTOVACUUM_IS_OFF
from tasks.core.declare import ToolArgs, measured, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed
from tasks.core.models import Change, Observation

VACUUM_SECONDS = 50.0
INDEX_SECONDS = 100.0
DROP_SECONDS = 10.0
LOCK_SECONDS = 3.0
OLDER_SECONDS = 20.0
"""How long the building of an index waits for transactions that are older; it keeps out schema changes alone."""
NAME_LENGTH = 63

# The counts are PostgreSQL's own estimates (n_dead_tup); `vacuums` tells whether a VACUUM was done at all.
_TABLE = SQL("""
    SELECT pg_class.oid::bigint AS oid, pg_stat_get_dead_tuples(pg_class.oid) AS dead_rows,
           pg_stat_get_live_tuples(pg_class.oid) AS live_rows, pg_stat_get_vacuum_count(pg_class.oid) AS vacuums,
           CASE WHEN {is_off} THEN 'off for the table'
                WHEN NOT current_setting('autovacuum')::bool THEN 'off for the server' ELSE 'on' END AS autovacuum
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %(schema)s AND relname = %(table)s AND relkind IN ('r', 'm')
""").format(is_off=AUTOVACUUM_IS_OFF)

_USE = SQL("""
    SELECT pg_table_size(%(oid)s::oid)::float8 / 1048576 AS size_mib, pg_stat_get_numscans(%(oid)s::oid) AS sequential_scans,
           pg_stat_get_tuples_returned(%(oid)s::oid) AS rows_read_sequentially,
           (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute
            WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped) AS columns,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('definition', pg_get_indexdef(indexrelid), 'valid', indisvalid,
                                                         'scans', pg_stat_get_numscans(indexrelid))), '[]')
            FROM pg_index WHERE indrelid = %(oid)s::oid) AS indexes,
           (SELECT coalesce(jsonb_agg(to_jsonb(found)), '[]') FROM (
               SELECT application_name, count(*) AS count, round(max({seconds})::numeric, 3)::float8 AS longest_seconds, {query} AS query
               FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND position(lower(%(table)s) IN lower(query)) > 0
               GROUP BY application_name, {query} ORDER BY count(*) DESC LIMIT 5
           ) AS found) AS statements
""").format(seconds=AGE_SECONDS, query=FINGERPRINT)

_INDEX = SQL("""
    SELECT relname AS name, indisvalid AS valid, indisunique AS is_unique, columns FROM (
        SELECT relname, indisvalid, indisunique,
               (SELECT array_agg(attname::text ORDER BY place) FROM unnest(indkey::int[]) WITH ORDINALITY AS keys(number, place)
                JOIN pg_attribute ON attrelid = indrelid AND attnum = number) AS columns
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = %(oid)s::oid AND indpred IS NULL AND indexprs IS NULL
    ) AS indexes WHERE relname = %(name)s OR (indisvalid AND columns[1:%(count)s] = %(columns)s::text[])
    ORDER BY relname = %(name)s DESC LIMIT 1
""")

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH)]
SCHEMA = Field("public", min_length=1, max_length=NAME_LENGTH, description="Schema of the table.")


class TableStats(ToolArgs):
    """Which table."""

    table: Name = Field(description="Name of the table.")
    schema_name: str = SCHEMA


class Vacuum(ToolArgs):
    """Which table."""

    table: Name = Field(description="Name of the table.")
    schema_name: str = SCHEMA
    autovacuum: bool = Field(False, description="Also remove the table's option that turns autovacuum off, so that it comes by again.")


class CreateIndex(ToolArgs):
    """On what."""

    table: Name = Field(description="Name of the table.")
    columns: tuple[Name, ...] = Field(min_length=1, max_length=4, description="Columns of the index, in its order.")
    schema_name: str = SCHEMA
    drop: bool = Field(False, description="Only to take it back: drop the index that this tool makes for these columns.")


def _other_table(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Whose options are changed beside those of the table that was measured to need it."""
    bloated = observation.reading.values.get("bloated_table")
    measured = (bloated.get("schema"), bloated.get("name")) if isinstance(bloated, dict) else None
    if not args.get("autovacuum") or measured == (args.get("schema_name", "public"), args.get("table")):
        return ""
    return f"the options of {args.get('table')}, which is not measured to have dead rows and no autovacuum"


def _always(args: Mapping[str, JsonValue], _observation: Observation) -> str:
    """No reading tells which index is worth its cost."""
    return f"every write to {args.get('table')} from now on, which has the index to keep"


@tool(service=Kind.POSTGRES, risk=Risk.READ_ONLY, title="Look at a table", fits=measured("slow", "dead_rows", "table_scans"))
async def postgres_table_stats(client: PostgresClient, args: TableStats) -> Change:
    """Show a table's size, dead rows, scans, columns, indexes, and statements that name it now.

    From pg_class, pg_index, pg_attribute and pg_stat_activity; statements are without their literals. Raises NotApplicable when there is
    no such table, Unreachable or ToolFailed.
    """
    table = await _table(client, args.schema_name, args.table)
    use = (await client.read(_USE, {"oid": table["oid"], "table": args.table}))[0]
    values: dict[str, JsonValue] = {**_shown(table), **use, "size_mib": round(use["size_mib"], 1)}
    return Change(before=values, after=values)


# DISRUPTIVE because it can't be taken back and loads the disk, though no data is lost and nobody is locked out but schema changes.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Vacuum a table",
    timeout_seconds=55,
    symptoms={"slow", "dead_rows"},
    aim=_other_table,
)
async def postgres_vacuum(client: PostgresClient, args: Vacuum) -> Change:
    """Vacuum and analyze one table while it is used, and let autovacuum come by again if asked.

    Reads back `dead_rows`, `live_rows`, `vacuums` (pg_stat_get_dead_tuples and the like) and `autovacuum`. Raises NotApplicable when there
    is no such table or its lock is not to be had within 3 s, ToolFailed when the server skipped it, Unreachable or OutcomeUnknown.
    """
    name = Identifier(args.schema_name, args.table)
    before = await _table(client, args.schema_name, args.table)
    if args.autovacuum and before["autovacuum"] == "off for the table":
        statement = SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(name)
        await client.change_apart(statement, seconds=LOCK_SECONDS, lock_seconds=LOCK_SECONDS)
    await client.change_apart(SQL("VACUUM (ANALYZE) {}").format(name), seconds=VACUUM_SECONDS, lock_seconds=LOCK_SECONDS)
    after = await _table(client, args.schema_name, args.table)
    if after["vacuums"] <= before["vacuums"]:
        raise ToolFailed(
            f"{client.resource.name}: {args.schema_name}.{args.table} was skipped; add `logins.maintenance`, a member of its owner, "
            "or give the monitor the role pg_maintain"
        )
    return Change(before=_shown(before), after=_shown(after))


@tool(
    service=Kind.POSTGRES,
    risk=Risk.REVERSIBLE,
    undo="postgres_create_index",
    title="Create an index",
    timeout_seconds=120,
    symptoms={"table_scans", "slow", "long_query"},
    aim=_always,
)
async def postgres_create_index(client: PostgresClient, args: CreateIndex) -> Change:
    """Create an index while the table is read and written.

    By CREATE INDEX CONCURRENTLY, as <table>_<columns>_idx; reads back pg_index. What a failed try left behind is removed. Raises
    NotApplicable when there is no such table or column, or an index begins with these columns already; ToolFailed when it could not be
    built, for example because a transaction goes on that is older; Unreachable or OutcomeUnknown.
    """
    table = await _table(client, args.schema_name, args.table)
    name = "_".join([args.table, *args.columns])[: NAME_LENGTH - len("_idx")] + "_idx"
    where = {"oid": table["oid"], "name": name, "columns": list(args.columns), "count": len(args.columns)}
    found = await client.read(_INDEX, where)
    if args.drop:
        return await _dropped(client, args, name, found)
    if found and found[0]["valid"]:
        raise NotApplicable(f"{client.resource.name}: the index {found[0]['name']} on {', '.join(found[0]['columns'])} is there already")
    await _require_columns(client, table, args)
    if found:
        await _drop(client, args, name)  # an invalid one, which an earlier try left
    statement = SQL("CREATE INDEX CONCURRENTLY {} ON {} ({})").format(
        Identifier(name), Identifier(args.schema_name, args.table), SQL(", ").join(map(Identifier, args.columns))
    )
    try:
        await client.change_apart(statement, seconds=INDEX_SECONDS, lock_seconds=OLDER_SECONDS)
    except (OutcomeUnknown, ToolFailed, NotApplicable) as error:
        if not await client.read(_INDEX, where):
            raise
        try:
            await _drop(client, args, name)
        except (OutcomeUnknown, ToolFailed, NotApplicable) as left:
            raise ToolFailed(f"{error}; of {name} an invalid part is left ({left}), which the next try removes") from error
        raise ToolFailed(f"{error}; what was built of {name} is dropped again") from error
    built = (await client.read(_INDEX, where))[0]
    undo = {"table": args.table, "columns": list(args.columns), "schema_name": args.schema_name, "drop": True}
    return Change(before={"index": None}, after={"index": built["name"], "columns": built["columns"], "valid": built["valid"]}, undo=undo)


async def _dropped(client: PostgresClient, args: CreateIndex, name: str, found: list[Row]) -> Change:
    """Only what this tool makes: of that name, on exactly these columns, and no constraint."""
    if not found or found[0]["name"] != name or found[0]["columns"] != list(args.columns) or found[0]["is_unique"]:
        raise NotApplicable(f"{client.resource.name}: there is no index {name} on just {', '.join(args.columns)}; nothing was dropped")
    await _drop(client, args, name)
    undo = {"table": args.table, "columns": list(args.columns), "schema_name": args.schema_name, "drop": False}
    return Change(before={"index": name, "columns": found[0]["columns"], "valid": found[0]["valid"]}, after={"index": None}, undo=undo)


async def _drop(client: PostgresClient, args: CreateIndex, name: str) -> None:
    statement = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(args.schema_name, name))
    await client.change_apart(statement, seconds=DROP_SECONDS, lock_seconds=LOCK_SECONDS)


async def _require_columns(client: PostgresClient, table: Row, args: CreateIndex) -> None:
    query = "SELECT attname::text AS name FROM pg_attribute WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped"
    known = {row["name"] for row in await client.read(query, {"oid": table["oid"]})}
    missing = [column for column in args.columns if column not in known]
    if missing:
        raise NotApplicable(f"{client.resource.name}: {args.table} has no column {missing[0]}; it has {', '.join(sorted(known))}")


async def _table(client: PostgresClient, schema: str, table: str) -> Row:
    rows = await client.read(_TABLE, {"schema": schema, "table": table})
    if not rows:
        raise NotApplicable(f"{client.resource.name}: no table {schema}.{table} in this database")
    return rows[0]


def _shown(table: Row) -> dict[str, JsonValue]:
    return {name: value for name, value in table.items() if name != "oid"}
