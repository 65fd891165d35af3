"""What retention costs, and what it leaves: `python -m tests.benchmarks.retention [--runs 5000]`.

A run with a subflow, its events and its artifacts is copied many times within Prefect's database, as one that ended 20 days ago, and the
database is measured before and after the server has cleaned up. The second round shows whether the space is used again.
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import LiteralString
from uuid import UUID

from prefect.settings import temporary_settings
from psycopg.sql import SQL, Identifier
from rich.table import Table

from compose.cli import run_until_done
from compose.control_plane import ControlPlane
from compose.description import free_ports
from compose.lab import running_lab
from compose.progress import console, doing
from compose.stack import prefect_database_url
from tasks.clients.polling import poll
from tests.stored_runs import Stored, run, stored, written

GONE_SECONDS = 600.0
LOOP = "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS"
COPY = SQL("""
    INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object('id', md5(t.id::text || n)::uuid, {changed}))).*
    FROM {table} AS t, generate_series(1, %s) AS n WHERE t.{column} = ANY(%s) RETURNING 1
""")
COPIES: dict[str, tuple[LiteralString, LiteralString]] = {
    "flow_run": ("id", "'end_time', t.end_time - interval '20 days', 'state_id', NULL, 'parent_task_run_id', NULL"),
    "flow_run_state": ("flow_run_id", "'flow_run_id', md5(t.flow_run_id::text || n)::uuid"),
    "task_run": ("flow_run_id", "'flow_run_id', md5(t.flow_run_id::text || n)::uuid, 'state_id', NULL"),
    "task_run_state": ("task_run_id", "'task_run_id', md5(t.task_run_id::text || n)::uuid"),
    "log": ("flow_run_id", "'flow_run_id', md5(t.flow_run_id::text || n)::uuid"),
    "artifact": ("flow_run_id", "'flow_run_id', md5(t.flow_run_id::text || n)::uuid"),
    "events": ("id", "'occurred', t.occurred - interval '20 days'"),
    "event_resources": ("event_id", "'event_id', md5(t.event_id::text || n)::uuid, 'occurred', t.occurred - interval '20 days'"),
}
"""Table -> the column that says whose row it is, and what differs in a copy."""


def copy(database: Stored, runs: list[UUID], times: int) -> None:
    """All that is stored of these runs, so many times more, and long ago."""
    tasks = [row[0] for row in database.rows("SELECT id FROM task_run WHERE flow_run_id = ANY(%s)", runs)]
    owners = {"task_run_state": tasks, "events": database.events_of(runs), "event_resources": database.events_of(runs)}
    with database.at_once():
        for table, (column, changed) in COPIES.items():
            query = COPY.format(table=Identifier(table), column=Identifier(column), changed=SQL(changed))
            database.rows(query, times, owners.get(table, runs))


def measured(database: Stored) -> tuple[int, float]:
    """Rows of these tables, and MiB of the whole database."""
    rows = sum(database.count(SQL("SELECT count(*) FROM {}").format(Identifier(table))) for table in COPIES)
    return rows, database.count("SELECT pg_database_size(current_database())") / 2**20


async def one_round(database: Stored, times: int) -> tuple[tuple[int, float], tuple[int, float], float]:
    """Rows and MiB when the copies are there and when they are gone, and the seconds between."""
    seed = [await run("retention", 1)]
    assert await poll(partial(written, database, seed, 4), seconds=60, every_seconds=0.2)
    copy(database, database.with_subflows(seed), times)
    began, before = time.monotonic(), measured(database)

    async def gone() -> bool | None:
        runs = database.count("SELECT count(*) FROM flow_run WHERE end_time < now() - interval '14 days'")
        events = database.count("SELECT count(*) FROM events WHERE occurred < now() - interval '7 days'")
        return runs + events == 0 or None

    assert await poll(gone, seconds=GONE_SECONDS, every_seconds=0.5), measured(database)
    return before, measured(database), time.monotonic() - began


async def retention(times: int) -> int:
    """Measure two rounds, and print them."""
    os.environ[LOOP] = "2"
    table = Table(title=f"{times:,} runs that ended 20 days ago, each with a subflow, four task runs, three artifacts and their events")
    for title in ("round", "rows before", "after", "MiB before", "after", "seconds"):
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as home:
        async with running_lab(Path(home) / "database", ["database"]) as lab:
            plane = ControlPlane(Path(home), free_ports(1)[0], prefect_database_url(lab))
            try:
                await plane.start_server()
                with temporary_settings(updates=plane.client_settings), stored(plane) as database:
                    for number in (1, 2):
                        with doing(f"round {number}"):
                            before, after, seconds = await one_round(database, times)
                            database.vacuum()
                        figures = (f"{before[0]:,}", f"{after[0]:,}", f"{before[1]:.0f}", f"{after[1]:.0f}", f"{seconds:.0f}")
                        table.add_row(str(number), *figures)
            finally:
                await plane.stop()
    console.print(table)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    sys.exit(run_until_done(retention(parser.parse_args().runs)))
