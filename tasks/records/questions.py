"""What planners were asked and what they answered, so that others can be asked the same."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select

from tasks.core.replay import Planned, Question, Ruled, SavedIncident, ShadowAnswer
from tasks.records.database import Database
from tasks.records.rows import fix_of
from tasks.records.tables import fixes, questions, shadows


class Questions:
    """What is done with questions. Every method raises RecordsUnavailable where the database can't be reached, or the fix is gone."""

    _database: Database

    async def save_question(self, fix_id: str, attempt: int, question: Question, acted: Ruled, now: datetime) -> None:
        """Keep what one plan of a fix was made from, and the plan with the policy's word on it."""
        values = {"asked_at": now, "question": question.model_dump(mode="json"), "acted": acted.model_dump(mode="json")}
        insert = self._database.insert(questions).values(fix_id=fix_id, attempt=attempt, **values)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["fix_id", "attempt"], set_=values))

    async def save_shadow(self, fix_id: str, attempt: int, answer: ShadowAnswer) -> None:
        """Keep what a planner in the shadow would have done."""
        values = {"answer": answer.model_dump(mode="json")}
        insert = self._database.insert(shadows).values(fix_id=fix_id, attempt=attempt, **values)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["fix_id", "attempt"], set_=values))

    async def shadows(self, fix_id: str) -> dict[int, ShadowAnswer]:
        """Attempt -> what a planner in the shadow would have done."""
        query = select(shadows.c.attempt, shadows.c.answer).where(shadows.c.fix_id == fix_id).order_by(shadows.c.attempt)
        async with self._database.begin() as connection:
            return {row.attempt: ShadowAnswer.model_validate(row.answer) for row in await connection.execute(query)}

    async def saved_incidents(
        self, ids: Sequence[str] | None = None, inventory: str | None = None, limit: int | None = None
    ) -> list[SavedIncident]:
        """Fixes with the questions of their plans, newest first; those of these ids, or all of an inventory, or all."""
        wanted: list[ColumnElement[bool]] = []
        if ids is not None:
            wanted.append(fixes.c.id.in_(ids))
        if inventory is not None:
            wanted.append(fixes.c.inventory == inventory)
        query = select(fixes).where(*wanted).order_by(fixes.c.opened_at.desc(), fixes.c.id).limit(limit)
        async with self._database.begin() as connection:
            found = [fix_of(row) for row in (await connection.execute(query)).mappings()]
        return [SavedIncident(fix=fix, planned=tuple(await self._planned(fix.id))) for fix in found]

    async def _planned(self, fix_id: str) -> list[Planned]:
        same = and_(shadows.c.fix_id == questions.c.fix_id, shadows.c.attempt == questions.c.attempt)
        columns = (questions.c.attempt, questions.c.asked_at, questions.c.question, questions.c.acted, shadows.c.answer.label("shadow"))
        query = select(*columns).select_from(questions.outerjoin(shadows, same)).where(questions.c.fix_id == fix_id)
        async with self._database.begin() as connection:
            rows = (await connection.execute(query.order_by(questions.c.attempt))).mappings()
            return [Planned.model_validate(dict(row)) for row in rows]
