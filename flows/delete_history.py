"""Delete the records of old fixes: a flow of its own, so that every deletion is itself on record."""

from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.records import load_records_url, load_retention_days
from tasks.records.repository import Records


@flow(name="delete-history", flow_run_name="Delete fixes older than {older_than_days} days", persist_result=False)
async def delete_history(older_than_days: float | None = None) -> State[None]:
    """Delete closed fixes from the records.

    Args:
        older_than_days: Age in days; empty: the retention that the records' block is configured with.
    """
    days = await load_retention_days() if older_than_days is None else older_than_days
    if days < 0:
        raise ValueError(f"older_than_days: give 0 or more, not {days}")
    async with await Records.open(await load_records_url()) as records:
        deleted = await records.delete(older_than=datetime.now(UTC) - timedelta(days=days))
    return Completed(message=f"{deleted} fix(es) older than {days:g} days deleted")
