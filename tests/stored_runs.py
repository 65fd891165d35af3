"""Runs as Prefect's server keeps them: rows in its database, counted and aged on a connection of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.objects import State
from psycopg.sql import SQL, Composed, Identifier

from compose.control_plane import ControlPlane

OLD_DAYS = 20
OF_RUNS = {
    "flow_run": "id",
    "flow_run_state": "flow_run_id",
    "task_run": "flow_run_id",
    "log": "flow_run_id",
    "artifact": "flow_run_id",
}
"""Table -> its column that names a flow run; the states of task runs hang on those."""


@task(persist_result=False)
async def write(key: str, text: str) -> None:
    await acreate_markdown_artifact(text, key=key)


@flow(persist_result=False)
async def below(key: str) -> None:
    await write(key, "of the subflow")


@flow(persist_result=False)
async def publish(key: str, version: int) -> None:
    """Three tasks, a subflow and three artifacts, as a monitor's run has."""
    await write("retention-status", f"version {version}")
    await write(key, f"version {version}")
    await below(f"{key}-below")


class Stored:
    """What Prefect's database holds, asked on a connection of its own."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: str | Composed, *values: object) -> list[Any]:
        """What the query finds."""
        return self._connection.execute(query.encode() if isinstance(query, str) else query, values).fetchall()

    def count(self, query: str | Composed, *values: object) -> int:
        """The number that the query answers."""
        return int(self.rows(query, *values)[0][0])

    def vacuum(self) -> None:
        """Do at once what autovacuum does within a minute: space of deleted rows can be used again."""
        self._connection.execute("VACUUM")

    def of_runs(self, runs: list[UUID]) -> dict[str, int]:
        """How many rows of each table belong to these runs."""
        query = SQL("SELECT count(*) FROM {} WHERE {} = ANY(%s)")
        found = {table: self.count(query.format(Identifier(table), Identifier(column)), runs) for table, column in OF_RUNS.items()}
        tasks = "SELECT count(*) FROM task_run_state AS s JOIN task_run AS t ON t.id = s.task_run_id WHERE t.flow_run_id = ANY(%s)"
        return found | {"task_run_state": self.count(tasks, runs)}

    def with_subflows(self, runs: list[UUID]) -> list[UUID]:
        """These runs and those below them."""
        query = "SELECT f.id FROM flow_run AS f JOIN task_run AS t ON t.id = f.parent_task_run_id WHERE t.flow_run_id = ANY(%s)"
        return [*runs, *(row[0] for row in self.rows(query, runs))]

    def events_of(self, runs: list[UUID]) -> list[UUID]:
        """The events about these runs."""
        about = [f"prefect.flow-run.{run}" for run in runs]
        return [row[0] for row in self.rows("SELECT DISTINCT event_id FROM event_resources WHERE resource_id = ANY(%s)", about)]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done meanwhile, others see at its end."""
        with self._connection.transaction():
            yield

    def make_old(self, runs: list[UUID]) -> int:
        """Move these runs and the events about them into the past; how many events there are."""
        age = timedelta(days=OLD_DAYS)
        self.rows("UPDATE flow_run SET end_time = end_time - %s WHERE id = ANY(%s) RETURNING id", age, runs)
        events = self.events_of(runs)
        self.rows("UPDATE events SET occurred = occurred - %s WHERE id = ANY(%s) RETURNING id", age, events)
        self.rows("UPDATE event_resources SET occurred = occurred - %s WHERE event_id = ANY(%s) RETURNING id", age, events)
        return len(events)


@contextmanager
def stored(plane: ControlPlane) -> Iterator[Stored]:
    """The database of this server."""
    url = plane.server_settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"].replace("+asyncpg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        yield Stored(connection)


async def run(key: str, version: int) -> UUID:
    """One run of the flow, with a line in its log."""
    state: State[Any] = await publish(key, version, return_state=True)
    assert state.is_completed(), state.message
    found = state.state_details.flow_run_id
    assert found is not None
    async with get_client() as client:
        line = LogCreate(name="test", level=20, message="a line", timestamp=datetime.now(UTC), flow_run_id=found)
        await client.create_logs([line])
    return found


async def written(database: Stored, runs: list[UUID], tasks: int) -> bool | None:
    """Whether so many task runs of these runs and their subflows are there and have ended; None: not yet."""
    query = "SELECT count(*) FROM task_run WHERE flow_run_id = ANY(%s) AND state_type = 'COMPLETED'"
    return database.count(query, database.with_subflows(runs)) == tasks or None
