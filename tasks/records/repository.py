"""The records, in one object."""

from types import TracebackType
from typing import Self

from tasks.records.charge import Charge
from tasks.records.database import Database
from tasks.records.figures import Counting
from tasks.records.fixes import Fixes
from tasks.records.housekeeping import Housekeeping
from tasks.records.planner_use import PlannerUse
from tasks.records.precedents import Precedents
from tasks.records.questions import Questions
from tasks.records.sweeps import Sweeps


class Records(Charge, Counting, Fixes, Housekeeping, PlannerUse, Precedents, Questions, Sweeps):
    """The records of every fix; they are also the lock that lets only one fix of a resource be open.

    Holds between processes, on one machine with SQLite and on many with PostgreSQL, and after the end of any of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str | None = None) -> Self:
        """The records at an SQLAlchemy URL (sqlite:///path or postgresql://...); the schema is created if it is missing.

        Without a URL: the file of `blocks.records_url.DEFAULT_PATH` below the working directory.
        RecordsUnavailable says why they can't be opened.
        """
        return cls(await Database.open(url))

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
