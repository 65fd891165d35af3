"""Tools for what the application may do in a PostgreSQL database."""

from collections.abc import Mapping
from typing import Literal, Self

from psycopg.sql import SQL, Identifier
from pydantic import Field, JsonValue, model_validator

from blocks.schema import Kind, Risk
from tasks.clients.postgres import PostgresClient
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change, Observation

GRANT_SECONDS = 5.0
LOCK_SECONDS = 3.0

PRIVILEGES = {
    "table": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "sequence": ("USAGE", "SELECT", "UPDATE"),
    "schema": ("USAGE",),
}

_HELD = {
    "table": SQL("""
        SELECT has_table_privilege(%(role)s::name, pg_class.oid, %(privilege)s) AS held FROM pg_class
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = %(schema)s AND relname = %(name)s AND relkind IN ('r', 'p', 'v', 'm', 'f')
    """),
    "sequence": SQL("""
        SELECT has_sequence_privilege(%(role)s::name, pg_class.oid, %(privilege)s) AS held FROM pg_class
        JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = %(schema)s AND relname = %(name)s AND relkind = 'S'
    """),
    "schema": SQL("SELECT has_schema_privilege(%(role)s::name, oid, %(privilege)s) AS held FROM pg_namespace WHERE nspname = %(schema)s"),
}
_KEYWORD = {"table": SQL("TABLE"), "sequence": SQL("SEQUENCE"), "schema": SQL("SCHEMA")}


class Grant(ToolArgs):
    """One privilege on one object; the role is always the application's."""

    privilege: Literal["SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"] = Field(
        description="The privilege; USAGE for a schema or sequence."
    )
    kind: Literal["table", "sequence", "schema"] = Field(description="What it is a privilege on; a view counts as a table.")
    name: str = Field("", max_length=63, description="Name of the table or sequence; empty for a schema.")
    schema_name: str = Field("public", min_length=1, max_length=63, description="The schema, or that of the table or sequence.")
    revoke: bool = Field(False, description="Only to take a grant back: revoke the privilege.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.privilege not in PRIVILEGES[self.kind]:
            raise ValueError(f"privilege: a {self.kind} has {', '.join(PRIVILEGES[self.kind])}, not {self.privilege}")
        if (self.kind == "schema") is not (not self.name):
            raise ValueError("name: give it for a table or sequence; a schema is named by schema_name")
        return self


def _not_lost(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Which privilege is given beside those that the application was measured to have lost."""
    kind, name, schema = args.get("kind"), args.get("name") or None, args.get("schema_name", "public")
    wanted = {"privilege": args.get("privilege"), "kind": kind, "schema": schema, "name": name}
    lost = observation.reading.values.get("privileges_missing")
    if args.get("revoke") is not True and isinstance(lost, list) and wanted in lost:
        return ""
    return f"{wanted['privilege']} on {kind} {name or schema}, which the application is not measured to have lost"


@tool(
    service=Kind.POSTGRES,
    risk=Risk.REVERSIBLE,
    undo="postgres_grant",
    title="Grant one privilege",
    symptoms={"privilege_missing"},
    aim=_not_lost,
)
async def postgres_grant(client: PostgresClient, args: Grant) -> Change:
    """Grant the application exactly one privilege on one table, sequence or schema.

    Reads back has_table_privilege and the like. Raises NotApplicable without an application login, when there is no such object or the
    application has the privilege already; ToolFailed when the server refuses or it does not take effect, Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    if client.application is None:
        raise NotApplicable(f"{name}: the inventory names no application login; add `logins.application`")
    role, what = client.application.username, f"{args.privilege} on {args.kind} {args.name or args.schema_name}"
    if await _held(client, args, role) is not args.revoke:
        raise NotApplicable(f"{name}: {role} has {'no ' if args.revoke else ''}{what} already; nothing was done")
    target = Identifier(args.schema_name) if args.kind == "schema" else Identifier(args.schema_name, args.name)
    template = SQL("REVOKE {} ON {} {} FROM {}") if args.revoke else SQL("GRANT {} ON {} {} TO {}")
    statement = template.format(SQL(args.privilege), _KEYWORD[args.kind], target, Identifier(role))
    await client.change_apart(statement, seconds=GRANT_SECONDS, lock_seconds=LOCK_SECONDS)
    after = await _held(client, args, role)
    if after is args.revoke:
        raise ToolFailed(f"{name}: the server took the statement, and {role} {'still has' if after else 'has still no'} {what}")
    undo = {**args.model_dump(mode="json"), "revoke": not args.revoke}
    return Change(before={what: args.revoke}, after={what: after}, undo=undo)


async def _held(client: PostgresClient, args: Grant, role: str) -> bool:
    values = {"role": role, "schema": args.schema_name, "name": args.name, "privilege": args.privilege}
    rows = await client.read(_HELD[args.kind], values)
    if not rows:
        raise NotApplicable(
            f"{client.resource.name}: no {args.kind} {args.schema_name}{'.' if args.name else ''}{args.name} in this database"
        )
    return bool(rows[0]["held"])
