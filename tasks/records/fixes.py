"""Fixes: the lock on a resource, the journal of its steps, and the history.

Whoever may no longer write is told by a False: every write of an owner is a compare-and-swap on `owner` and `closed_at`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, and_, delete, select, update

from tasks.core.detection import Escalation
from tasks.core.models import FixRecord, Incident, Outcome, Step, Verdict
from tasks.records.database import Database
from tasks.records.rows import JournalEntry, OpenFix, fix_of, story
from tasks.records.tables import fixes, steps

HISTORY_LIMIT = 50
OVER_MCP = "mcp: "
"""How the planner of a fix begins that an MCP client asked for; its name follows."""


def _owned(fix_id: str, owner: str) -> ColumnElement[bool]:
    return and_(fixes.c.id == fix_id, fixes.c.owner == owner, fixes.c.closed_at.is_(None))


class Fixes:
    """What is done with fixes. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def open_fix(self, record: FixRecord, owner: str, now: datetime) -> bool:
        """Claim the incident's resource. False if a fix of it is open, in whatever process, or this fix exists already."""
        row = {
            "id": record.id,
            "inventory": record.incident.inventory,
            "resource": record.incident.resource,
            "owner": owner,
            "opened_at": record.opened_at,
            "heartbeat_at": now,
            **story(record),
        }
        return await self._changed(self._database.insert(fixes).values(row).on_conflict_do_nothing()) == 1

    async def heartbeat(self, fix_id: str, owner: str, now: datetime) -> bool:
        """Show that the owner lives. False: the fix is closed or another's, so the caller has to stop."""
        return await self._changed(update(fixes).where(_owned(fix_id, owner)).values(heartbeat_at=now)) == 1

    async def open_fixes(self, inventory: str) -> list[OpenFix]:
        """The fixes under way, oldest first."""
        names = [name for name in OpenFix.model_fields if name != "fix_id"]
        columns = [fixes.c.id.label("fix_id"), *(fixes.c[name] for name in names)]
        query = select(*columns).where(fixes.c.inventory == inventory, fixes.c.closed_at.is_(None)).order_by(fixes.c.opened_at)
        async with self._database.begin() as connection:
            return [OpenFix.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]

    async def abandon(self, record: FixRecord, last_heartbeat: datetime, now: datetime, message: str) -> FixRecord | None:
        """Close a fix whose owner is silent, with its story as it is given.

        Exactly one of several callers gets the record; None: it is closed, waits, or its owner was heard after `last_heartbeat`, which is
        the one that the caller has found.
        """
        silent = (fixes.c.closed_at.is_(None), fixes.c.waiting_until.is_(None), fixes.c.heartbeat_at == last_heartbeat)
        change = (
            update(fixes)
            .where(fixes.c.id == record.id, *silent)
            .values({**story(record), "closed_at": now, "verdict": Verdict.ABANDONED.value, "message": message})
            .returning(*fixes.c)
        )
        return await self._one(change)

    async def wait_for_person(self, record: FixRecord, owner: str, until: datetime) -> bool:
        """Keep the story and the claim while a person is asked; no owner need live. False: the fix is closed or another's."""
        return await self._changed(update(fixes).where(_owned(record.id, owner)).values({**story(record), "waiting_until": until})) == 1

    async def note_run(self, fix_id: str, flow_run_id: str) -> bool:
        """Note which run asks the person. False: the fix does not wait for one."""
        waits = (fixes.c.id == fix_id, fixes.c.closed_at.is_(None), fixes.c.waiting_until.is_not(None))
        return await self._changed(update(fixes).where(*waits).values(flow_run_id=flow_run_id)) == 1

    async def resume(self, fix_id: str, owner: str, now: datetime) -> FixRecord | None:
        """Become the owner of a fix whose person has answered. None: its time is over, or it does not wait."""
        change = (
            update(fixes)
            .where(fixes.c.id == fix_id, fixes.c.closed_at.is_(None), fixes.c.waiting_until >= now)
            .values(owner=owner, heartbeat_at=now, waiting_until=None)
            .returning(*fixes.c)
        )
        return await self._one(change)

    async def expire(self, fix_id: str, now: datetime, message: str) -> FixRecord | None:
        """Escalate a fix for which nobody answered in time. Exactly one of several callers gets the record."""
        change = (
            update(fixes)
            .where(fixes.c.id == fix_id, fixes.c.closed_at.is_(None), fixes.c.waiting_until < now)
            .values(closed_at=now, verdict=Verdict.ESCALATED.value, message=message)
            .returning(*fixes.c)
        )
        return await self._one(change)

    async def withdraw(self, fix_id: str, now: datetime, message: str) -> FixRecord | None:
        """Escalate a fix that waits for a person, before its time is over. None: it does not wait."""
        change = (
            update(fixes)
            .where(fixes.c.id == fix_id, fixes.c.closed_at.is_(None), fixes.c.waiting_until.is_not(None))
            .values(closed_at=now, verdict=Verdict.ESCALATED.value, message=message)
            .returning(*fixes.c)
        )
        return await self._one(change)

    async def escalations(self, inventory: str, since: datetime) -> dict[str, Escalation]:
        """Resource -> its last fix, where that was closed since then without having healed it.

        What a client did over MCP is left out: nobody was called for it, so it holds nothing back.
        """
        columns = (fixes.c.resource, fixes.c.verdict, fixes.c.closed_at, fixes.c.incident)
        wanted = (fixes.c.inventory == inventory, fixes.c.closed_at >= since, fixes.c.planner.not_like(f"{OVER_MCP}%"))
        query = select(*columns).where(*wanted).order_by(fixes.c.closed_at)
        found: dict[str, Escalation] = {}
        async with self._database.begin() as connection:
            for row in await connection.execute(query):
                found.pop(row.resource, None)
                if row.verdict in {Verdict.ESCALATED, Verdict.FAILED}:
                    incident = Incident.model_validate(row.incident)
                    found[row.resource] = Escalation(
                        closed_at=row.closed_at, symptoms=frozenset(incident.symptoms), predicted=incident.observation.predicted
                    )
        return found

    async def begin_step(self, fix_id: str, owner: str, ordinal: int, step: Step, now: datetime) -> bool:
        """Journal a step before it runs. False: the fix is no longer the caller's, or this ordinal was begun before.

        A step that was refused must not run. One that was begun is on disk when this returns.
        """
        row = {"fix_id": fix_id, "ordinal": ordinal, "step": step.model_dump(mode="json"), "begun_at": now}
        async with self._database.begin() as connection:
            # The heartbeat locks the fix's row: who abandons it waits, and then finds its owner alive.
            held = await connection.execute(update(fixes).where(_owned(fix_id, owner)).values(heartbeat_at=now))
            if held.rowcount != 1:
                return False
            begun = await connection.execute(self._database.insert(steps).values(row).on_conflict_do_nothing())
            return begun.rowcount == 1

    async def end_step(self, fix_id: str, ordinal: int, outcome: Outcome) -> bool:
        """Journal what came of a step, be the fix closed meanwhile or not. False: it was not begun, or has ended before."""
        pending = and_(steps.c.fix_id == fix_id, steps.c.ordinal == ordinal, steps.c.outcome.is_(None))
        return await self._changed(update(steps).where(pending).values(outcome=outcome.model_dump(mode="json"))) == 1

    async def journal(self, fix_id: str) -> list[JournalEntry]:
        """Every step that was begun, in order."""
        columns = [steps.c[name] for name in JournalEntry.model_fields]
        async with self._database.begin() as connection:
            rows = await connection.execute(select(*columns).where(steps.c.fix_id == fix_id).order_by(steps.c.ordinal))
            return [JournalEntry.model_validate(dict(row)) for row in rows.mappings()]

    async def interrupted_steps(self, fix_id: str) -> list[Step]:
        """The steps that were begun and never ended: each may have changed the server, or not."""
        return [entry.step for entry in await self.journal(fix_id) if entry.outcome is None]

    async def update_fix(self, record: FixRecord, owner: str) -> bool:
        """Keep the story so far. False: the fix is closed or another's; nothing was written."""
        return await self._changed(update(fixes).where(_owned(record.id, owner)).values(story(record))) == 1

    async def close_fix(self, record: FixRecord, owner: str, verdict: Verdict, message: str, now: datetime) -> bool:
        """Keep the whole story and free the resource. False: the fix is closed or another's; nothing was written."""
        values = {**story(record), "verdict": verdict.value, "message": message, "closed_at": now}
        return await self._changed(update(fixes).where(_owned(record.id, owner)).values(values)) == 1

    async def get(self, fix_id: str) -> FixRecord | None:
        """One fix, or None."""
        found = await self._select(fixes.c.id == fix_id, limit=1)
        return found[0] if found else None

    async def history(
        self,
        resource: str | None = None,
        inventory: str | None = None,
        verdict: Verdict | None = None,
        limit: int = HISTORY_LIMIT,
        since: datetime | None = None,
    ) -> list[FixRecord]:
        """Fixes, newest first, open ones too; `since`: opened then or later."""
        wanted: list[ColumnElement[bool]] = []
        if resource is not None:
            wanted.append(fixes.c.resource == resource)
        if inventory is not None:
            wanted.append(fixes.c.inventory == inventory)
        if verdict is not None:
            wanted.append(fixes.c.verdict == verdict.value)
        if since is not None:
            wanted.append(fixes.c.opened_at >= since)
        return await self._select(*wanted, limit=limit)

    async def delete(self, older_than: datetime | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete fixes that were closed before `older_than`, or those of these ids; never one that is open.

        Returns how many. ValueError unless it gets one of the two.
        """
        if (older_than is None) == (ids is None):
            raise ValueError("delete: give either older_than or ids")
        chosen = fixes.c.closed_at < older_than if ids is None else fixes.c.id.in_(ids)
        return await self._changed(delete(fixes).where(fixes.c.closed_at.is_not(None), chosen))

    async def _one(self, change: Any) -> FixRecord | None:
        async with self._database.begin() as connection:
            row = (await connection.execute(change)).mappings().one_or_none()
        return None if row is None else fix_of(row)

    async def _select(self, *wanted: ColumnElement[bool], limit: int) -> list[FixRecord]:
        query = select(fixes).where(*wanted).order_by(fixes.c.opened_at.desc(), fixes.c.id).limit(limit)
        async with self._database.begin() as connection:
            return [fix_of(row) for row in (await connection.execute(query)).mappings()]

    async def _changed(self, statement: Any) -> int:
        async with self._database.begin() as connection:
            result: CursorResult[Any] = await connection.execute(statement)
            return result.rowcount
