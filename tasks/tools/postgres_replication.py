"""Tools for the replication slots of a PostgreSQL server."""

from psycopg.sql import SQL, Literal
from pydantic import Field

from blocks.schema import Kind, Risk
from tasks.clients.postgres import PostgresClient, Row
from tasks.clients.postgres_upkeep import RETAINED_MIB
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change

DROP_SECONDS = 5.0

_SLOTS = SQL("""
    SELECT slot_name AS slot, active, {retained} AS retained_mib FROM pg_replication_slots WHERE slot_name = %(slot)s
""").format(retained=RETAINED_MIB)


class DropSlot(ToolArgs):
    """Which slot."""

    slot: str = Field(pattern=r"^[a-z0-9_]{1,63}$", description="Name of the slot; nobody may be reading it.")


# DESTRUCTIVE: whoever comes back for the slot has lost its place, and has to be built anew.
@tool(service=Kind.POSTGRES, risk=Risk.DESTRUCTIVE, title="Drop a replication slot", symptoms={"wal_retained"})
async def postgres_drop_slot(client: PostgresClient, args: DropSlot) -> Change:
    """Drop a replication slot that nobody reads, so that its WAL can go.

    A standby that still needs it must be rebuilt. Reads back pg_replication_slots. Raises NotApplicable when there is no such slot or
    somebody reads it, ToolFailed when the server refuses (the maintenance login needs REPLICATION), Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    before = await _slot(client, args.slot)
    if before is None:
        raise NotApplicable(f"{name}: no replication slot {args.slot}")
    if before["active"]:
        raise NotApplicable(f"{name}: somebody reads the slot {args.slot}; nothing was done")
    statement = SQL("SELECT pg_drop_replication_slot({})").format(Literal(args.slot))
    await client.change_apart(statement, seconds=DROP_SECONDS, lock_seconds=DROP_SECONDS)
    if await _slot(client, args.slot) is not None:
        raise ToolFailed(f"{name}: the slot {args.slot} is there again; somebody makes it anew")
    return Change(before=dict(before), after={**before, "slot": None, "retained_mib": 0})


async def _slot(client: PostgresClient, slot: str) -> Row | None:
    rows = await client.read(_SLOTS, {"slot": slot})
    return rows[0] if rows else None
