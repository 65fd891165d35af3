"""One healthy monitor cycle for many resources: time, peak memory and the rows it adds.

`python -m tests.benchmarks.sweeps COUNT LAB_DIRECTORY PREFECT_LAB_DIRECTORY` prints the figures as JSON; a process a count, for the memory.
"""

import asyncio
import json
import resource
import statistics
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.sql import SQL, Identifier

import flows.monitor
from compose.description import LabDescription, load
from compose.inventory import environment, inventory
from tasks.probing import Known, Sweep, sweep

SWEEPS = 5
EVERY_SECONDS = 6.0
TABLES = ("flow_run", "flow_run_state", "task_run", "task_run_state", "artifact", "log", "events")


def many(lab: LabDescription, count: int) -> dict[str, Any]:
    """An inventory of that many resources, all served by the lab's few servers."""
    data = inventory(lab)
    templates = [one for one in data["resources"] if one["name"] in {"shop-db", "shop-cache", "shop-web"}]
    resources = []
    for number in range(count):
        template = templates[number % len(templates)]
        resources.append({**template, "name": f"{template['name']}-{number}", "depends_on": []})
    return {**data, "name": f"bench-{count}", "resources": resources}


def rows(prefect: LabDescription) -> dict[str, int]:
    """Rows of the Prefect server's tables."""
    with psycopg.connect(prefect.database.conninfo("application")) as connection:
        counts: dict[str, int] = {}
        for table in TABLES:
            row = connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table))).fetchone()
            counts[table] = 0 if row is None else int(row[0])
    return counts


async def measure(count: int, lab: LabDescription, prefect: LabDescription) -> dict[str, Any]:
    """Run a monitor for some sweeps, each of them timed."""
    before = rows(prefect)
    seconds: list[float] = []

    async def timed(number: int, known: Known, only: Collection[str] = ()) -> Sweep:
        found = await sweep(number, known, only)
        seconds.append(found.seconds)
        return found

    setattr(flows.monitor, "sweep", timed)  # noqa: B010 - its name in that module
    state = await flows.monitor.monitor(f"bench-{count}", EVERY_SECONDS, EVERY_SECONDS * (SWEEPS - 0.5), return_state=True)
    await asyncio.sleep(3)  # the server writes task runs in batches, once a second
    after = rows(prefect)
    return {
        "resources": count,
        "sweeps": len(seconds),
        "seconds_per_sweep": round(statistics.median(seconds[1:]), 3),
        "first_sweep_seconds": round(seconds[0], 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "rows_added": {table: after[table] - before[table] for table in TABLES},
        "ended": state.message,
    }


def write(lab: LabDescription, count: int, path: Path) -> None:
    """Write such an inventory and its passwords for `python -m blocks.register`."""
    path.write_text(yaml.safe_dump(many(lab, count)), encoding="utf-8")
    path.with_suffix(".env").write_text("".join(f"{name}={value}\n" for name, value in environment(lab).items()), encoding="utf-8")
    path.with_suffix(".env").chmod(0o600)


if __name__ == "__main__":
    figures = asyncio.run(measure(int(sys.argv[1]), load(Path(sys.argv[2])), load(Path(sys.argv[3]))))
    sys.stdout.write(json.dumps(figures) + "\n")
