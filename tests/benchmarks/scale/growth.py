"""What the databases grow by where a thousand resources are well: as documented, by a worker, a run each minute, a sweep each 15 s."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings

from compose.control_plane import WORK_POOL
from compose.description import LabError
from compose.progress import doing
from tests.benchmarks.scale.place import MIB, Place

MINUTES = 2
SETTLED_SECONDS = 180.0
DAY_MINUTES = 24 * 60
SHOWN_EVERY_SECONDS = 600.0
"""How often a table of a thousand resources is shown where nothing changes; see `tasks.core.showing`."""


@dataclass(frozen=True)
class Sizes:
    """Both databases at one moment."""

    mebibytes: dict[str, float]
    of_tables: dict[str, float]
    runs: int
    tables: int
    table_mib: float
    """Tables that were shown so far, and the space of the last one."""


def sizes(place: Place) -> Sizes:
    """As they are now."""
    length = "pg_column_size(data)" if place.kind == "PostgreSQL" else "length(data)"
    tables = place.query_prefect(f"SELECT {length} FROM artifact WHERE key LIKE 'status-%' ORDER BY created")  # noqa: S608
    runs = place.query_prefect("SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'")
    return Sizes(
        place.mebibytes(), place.mebibytes_of_tables(), int(runs[0][0]), len(tables), float(tables[-1][0]) / MIB if tables else 0.0
    )


async def growth(place: Place, inventory: str) -> dict[str, Any]:
    """Deploy as the documentation says, let it settle, and measure for some minutes."""
    plane = place.plane
    with doing(f"{place.kind}: {inventory} watched by a scheduled deployment for {MINUTES} minutes, once it has settled"):
        await plane.run("-m", "prefect", "work-pool", "create", WORK_POOL, "--type", "process", "--overwrite")
        names = {"EVENKEEL_INVENTORY": inventory, "EVENKEEL_POOL": WORK_POOL}
        await plane.run("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "docs/deployments.yaml", "--all", environment=names)
        await plane.start_worker({})
        with temporary_settings(updates=plane.client_settings):
            async with get_client() as client:
                deployment = await client.read_deployment_by_name(f"monitor/{inventory}")
                began = datetime.now(UTC)
                await client.create_flow_run_from_deployment(deployment.id)
        await _settled(place, inventory, began)
        await asyncio.to_thread(place.tidy)
        before, started = sizes(place), time.monotonic()
        await asyncio.sleep(60 * MINUTES)
        after, minutes = sizes(place), (time.monotonic() - started) / 60
        await plane.processes.end("worker")
    shown = after.tables - before.tables
    # A table counts as often as it is shown in a day, and not as often as it happened to be within these minutes; Prefect keeps its last
    # version twice.
    grown = {name: (size - before.mebibytes[name]) / minutes * DAY_MINUTES for name, size in after.mebibytes.items()}
    by_table = {name: (size - before.of_tables.get(name, 0)) / minutes * DAY_MINUTES for name, size in after.of_tables.items()}
    tables = after.table_mib * 86400 / SHOWN_EVERY_SECONDS
    grown["prefect"] += tables - shown * after.table_mib / minutes * DAY_MINUTES
    return {
        "database": place.kind,
        "inventory": inventory,
        "minutes": round(minutes, 2),
        "runs": after.runs - before.runs,
        "tables_shown": shown,
        "table_mib": round(after.table_mib, 3),
        "mib_a_day": {name: round(size, 1) for name, size in grown.items()},
        "of_which_tables": round(tables, 1),
        "prefect_by_table": {name: round(size, 1) for name, size in sorted(by_table.items(), key=lambda one: -one[1]) if size > 0},
        "mib_now": {name: round(size, 1) for name, size in after.mebibytes.items()},
    }


async def _settled(place: Place, inventory: str, began: datetime) -> None:
    """Until a second run has taken over and swept: from then on one minute is like another."""
    deadline, seen = time.monotonic() + SETTLED_SECONDS, set[str]()
    while time.monotonic() < deadline:
        query = "SELECT run_id FROM evenkeel_monitors WHERE inventory LIKE ? AND last_sweep_at > ?"
        since = began if place.kind == "PostgreSQL" else began.replace(tzinfo=None).isoformat(" ")
        seen |= {str(row[0]) for row in await asyncio.to_thread(place.query_records, query, f"{inventory}%", since)}
        if len(seen) >= 2:
            return
        await asyncio.sleep(1)
    log = place.plane.processes.log("worker")
    raise LabError(f"{inventory}: only {len(seen)} monitor run(s) swept within {SETTLED_SECONDS:g} s; read {log}")
