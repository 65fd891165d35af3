"""Delete the records of old fixes: a flow of its own, so that every deletion is itself on record."""

from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.records import load_records_url, load_retention_days
from tasks.records.repository import Records
from tasks.retention import told_of_runs


def _run_name() -> str:
    days = runtime.flow_run.parameters.get("older_than_days")
    return "Delete old fixes" if days is None else f"Delete fixes older than {days:g} days"


@flow(name="delete-history", flow_run_name=_run_name, persist_result=False)
async def delete_history(older_than_days: float | None = None, keep_of_each_resource: int = 3) -> State[None]:
    """Delete closed fixes from the records, and what is left of resources that nobody watches any more.

    Args:
        older_than_days: Age in days; empty: the retention that the records' block is configured with.
        keep_of_each_resource: So many of the newest fixes of a watched resource stay however old they are: planners learn from them,
            and they can be planned again.
    """
    days = await load_retention_days() if older_than_days is None else older_than_days
    if days < 0 or keep_of_each_resource < 0:
        raise ValueError(f"older_than_days and keep_of_each_resource: give 0 or more, not {days} and {keep_of_each_resource}")
    async with await Records.open(await load_records_url()) as records:
        removed = await records.delete_old(datetime.now(UTC) - timedelta(days=days), keep_of_each_resource)
        sizes = await records.sizes()
    async with get_client() as client:
        is_well, told = await told_of_runs(client)
    if not is_well:
        get_run_logger().warning(told)
    kept = f"{sum(one.rows for one in sizes)} rows, {sum(one.kibibytes or 0 for one in sizes):,.0f} KiB are kept"
    gone = f"{removed.resources} resource(s) and {removed.monitors} monitor(s) that are no more"
    return Completed(message=f"{removed.fixes} fix(es) older than {days:g} days deleted, {gone}; {kept}. {told}")
