"""How planners have done and what they have used: it outlives every process, and all processes count together."""

from datetime import date, datetime

from sqlalchemy import select, update

from tasks.core.circuit import Circuit, open_until
from tasks.core.models import Usage
from tasks.records.database import Database
from tasks.records.tables import planner_use, planners


class PlannerUse:
    """The circuit and the daily use of each planner. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def circuit(self, planner: str) -> Circuit:
        """How the planner has done lately."""
        query = select(planners.c.failures, planners.c.open_until).where(planners.c.name == planner)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return Circuit() if row is None else Circuit.model_validate(dict(row))

    async def claim_trial(self, planner: str, now: datetime, until: datetime) -> bool:
        """Be the one who tries a planner whose pause is over; for all others the pause goes on `until` the trial is decided."""
        over = (planners.c.name == planner, planners.c.open_until <= now)
        async with self._database.begin() as connection:
            return (await connection.execute(update(planners).where(*over).values(open_until=until))).rowcount == 1

    async def planner_succeeded(self, planner: str) -> None:
        """Close the circuit."""
        known = (planners.c.name == planner, planners.c.failures > 0)
        async with self._database.begin() as connection:
            await connection.execute(update(planners).where(*known).values(failures=0, open_until=None))

    async def planner_failed(self, planner: str, now: datetime) -> Circuit:
        """Count a failure, and open the circuit where it was one too many."""
        insert = self._database.insert(planners).values(name=planner, failures=1)
        counted = insert.on_conflict_do_update(index_elements=["name"], set_={"failures": planners.c.failures + 1})
        async with self._database.begin() as connection:
            # The first statement locks the row, so no other failure comes between the two.
            failures = (await connection.execute(counted.returning(planners.c.failures))).scalar_one()
            state = Circuit(failures=failures, open_until=open_until(failures, now))
            if state.open_until is not None:
                await connection.execute(update(planners).where(planners.c.name == planner).values(open_until=state.open_until))
        return state

    async def add_use(self, planner: str, day: date, used: Usage) -> None:
        """Add what a plan has used to its day."""
        values = used.model_dump()
        insert = self._database.insert(planner_use).values(name=planner, day=day, **values)
        sums = {name: planner_use.c[name] + insert.excluded[name] for name in values}
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["name", "day"], set_=sums))

    async def use_of(self, planner: str, day: date) -> Usage:
        """What the planner has used on a day (UTC)."""
        columns = [planner_use.c[name] for name in Usage.model_fields]
        query = select(*columns).where(planner_use.c.name == planner, planner_use.c.day == day)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return Usage() if row is None else Usage.model_validate(dict(row))
