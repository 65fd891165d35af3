"""Other fixes than the one that asks: what the policy's caps and cool-downs are counted from, and what a planner may learn from."""

from datetime import datetime

from sqlalchemy import case, exists, func, select

from tasks.core.models import Incident
from tasks.core.precedents import Precedent, Trace, most_alike, precedent_of
from tasks.records.database import Database
from tasks.records.rows import JournalEntry, fix_of
from tasks.records.tables import fixes, steps

CANDIDATES = 200
"""So many of an inventory's newest fixes of the kind are compared."""


class Precedents:
    """Fixes seen from another one. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def fixes_since(self, inventory: str, resource: str, since: datetime, *, besides: str) -> tuple[int, int]:
        """How many fixes were opened since then, open ones too and one left out: of the resource, and of the whole inventory."""
        of_resource = func.coalesce(func.sum(case((fixes.c.resource == resource, 1), else_=0)), 0)
        wanted = (fixes.c.inventory == inventory, fixes.c.opened_at >= since, fixes.c.id != besides)
        async with self._database.begin() as connection:
            row = (await connection.execute(select(of_resource, func.count()).select_from(fixes).where(*wanted))).one()
        return int(row[0]), int(row[1])

    async def steps_since(self, inventory: str, resource: str, since: datetime, *, besides: str) -> list[JournalEntry]:
        """The steps that other fixes of the resource began since then, oldest first."""
        columns = [steps.c[name] for name in JournalEntry.model_fields]
        of_resource = (fixes.c.id == steps.c.fix_id, fixes.c.inventory == inventory, fixes.c.resource == resource, fixes.c.id != besides)
        # Not a join: SQLite would then go through every fix of the resource, where the steps of the last minutes are few.
        query = select(*columns).where(steps.c.begun_at >= since, exists().where(*of_resource)).order_by(steps.c.begun_at)
        async with self._database.begin() as connection:
            return [JournalEntry.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]

    async def precedents(self, incident: Incident, limit: int) -> list[Precedent]:
        """The closed fixes that are most like the incident, the most alike first."""
        # As much as it takes to compare them; the whole story only of those that are chosen.
        columns = (fixes.c.id, fixes.c.resource, fixes.c.opened_at, fixes.c.closed_at, fixes.c.verdict)
        wanted = (
            fixes.c.inventory == incident.inventory,
            fixes.c.closed_at.is_not(None),
            fixes.c.id != incident.id,
            fixes.c.incident["kind"].as_string() == incident.kind.value,
        )
        query = select(*columns, fixes.c.incident["symptoms"].label("symptoms")).where(*wanted)
        async with self._database.begin() as connection:
            rows = (await connection.execute(query.order_by(fixes.c.opened_at.desc(), fixes.c.id).limit(CANDIDATES))).mappings()
            traces = [Trace.model_validate(dict(row)) for row in rows]
            chosen = most_alike(traces, incident, limit)
            whole = (await connection.execute(select(fixes).where(fixes.c.id.in_([trace.id for trace in chosen])))).mappings()
            found = {row["id"]: fix_of(row) for row in whole}
        return [precedent_of(found[trace.id], trace, traces, incident) for trace in chosen]
