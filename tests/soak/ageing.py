"""What is deleted while a soak goes on, by the product's own means, with an age of minutes in place of days.

Prefect takes no age of flow runs below an hour. So the runs that are over for long enough are said to have ended an hour earlier, which is
all that is done to the database from outside; then its own vacuum finds them as it does after weeks.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

import httpx
import psycopg
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.deployments import arun_deployment

from compose.description import LabError
from compose.stack import Stack

LEAST_SECONDS = 3601
SHIFT_SECONDS = 3600
DAY_SECONDS = 86400
CONNECT_SECONDS = 5
SHIFT = """
    UPDATE flow_run SET end_time = end_time - %(shift)s * interval '1 s'
    WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
      AND end_time < now() - %(age)s * interval '1 s' AND end_time > now() - %(shift)s * interval '1 s'
"""


@dataclass(frozen=True)
class Ages:
    """How long what is kept of a soak is kept."""

    kept_seconds: float
    """Age of runs, events and records from which on they are deleted."""
    every_seconds: float
    """How often that is looked for."""

    @property
    def server_settings(self) -> dict[str, str]:
        """For Prefect's server."""
        vacuum = "PREFECT_SERVER_SERVICES_DB_VACUUM"
        return {
            f"{vacuum}_ENABLED": "events,flow_runs",
            f"{vacuum}_RETENTION_PERIOD": str(LEAST_SECONDS),
            f"{vacuum}_LOOP_SECONDS": f"{self.every_seconds:g}",
            f"{vacuum}_ORPHAN_CLEANUP_LOOP_SECONDS": f"{self.every_seconds:g}",
            "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{self.kept_seconds:.0f}S",
        }


def ages_of(minutes: float) -> Ages:
    """A sixth of the soak's time, so that most of it shows what comes and goes; between two minutes and ten."""
    kept = min(max(minutes * 60 / 6, 120.0), 600.0)
    return Ages(kept, kept / 10)


async def age(running: Stack, ages: Ages) -> None:
    """Have runs and records deleted as they reach their age, until cancelled."""
    deployment = await _deletion()
    records_due = time.monotonic()
    while True:
        # A server that is busy is asked again the next time.
        with contextlib.suppress(psycopg.Error):
            await _shift(running, ages)
        if time.monotonic() >= records_due:
            records_due = time.monotonic() + 3 * ages.every_seconds
            with contextlib.suppress(httpx.HTTPError):
                days = ages.kept_seconds / DAY_SECONDS
                await arun_deployment(deployment, parameters={"older_than_days": days}, timeout=0, as_subflow=False)
        await asyncio.sleep(ages.every_seconds / 2)


async def _deletion() -> str:
    """The deployment that deletes old records, by the names of its flow and its own."""
    async with get_client() as client:
        found = await client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=["delete-history"])))
    if not found:
        raise LabError("delete-history: no deployment of this flow; it is in prefect.yaml")
    return f"delete-history/{found[0].name}"


async def _shift(running: Stack, ages: Ages) -> None:
    text = running.prefect_database.database.conninfo("admin")
    async with await psycopg.AsyncConnection.connect(text, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        await connection.execute(SHIFT, {"shift": SHIFT_SECONDS, "age": ages.kept_seconds})
