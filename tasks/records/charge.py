"""Which planner an evaluation has put in charge of a lab, and until when: it ends by itself where the evaluation was killed."""

from datetime import datetime

from sqlalchemy import delete, select

from tasks.records.database import Database
from tasks.records.tables import charges


class Charge:
    """Who plans for an inventory for a time. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def put_in_charge(self, inventory: str, planner: str, until: datetime) -> None:
        """Let this planner make the inventory's plans until then, in place of whoever was in charge."""
        values = {"planner": planner, "until": until}
        insert = self._database.insert(charges).values(inventory=inventory, **values)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["inventory"], set_=values))

    async def planner_in_charge(self, inventory: str, now: datetime) -> str | None:
        """The planner that was put in charge; None: the inventory's own."""
        query = select(charges.c.planner).where(charges.c.inventory == inventory, charges.c.until > now)
        async with self._database.begin() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def end_charge(self, inventory: str) -> None:
        """Let the inventory's own planner plan again."""
        async with self._database.begin() as connection:
            await connection.execute(delete(charges).where(charges.c.inventory == inventory))
