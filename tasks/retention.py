"""What Prefect's server does about its own old rows."""

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import TypeAdapter

DURATION = TypeAdapter(timedelta)
REMEDY = "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs"


async def runs_are_kept_for(client: PrefectClient) -> timedelta | None:
    """How long the server keeps runs that have ended, with their logs and artifacts; None: for ever.

    Asked of the server that answers: where background services run apart, they are meant to have its settings.
    PrefectHTTPStatusError where the API is one that does not tell, such as Prefect Cloud's.
    """
    response = await client.request("GET", "/admin/settings")
    vacuum: dict[str, Any] = response.json()["server"]["services"]["db_vacuum"]
    enabled = vacuum["enabled"]
    if enabled is not True and "flow_runs" not in (enabled or ()):
        return None
    return DURATION.validate_python(vacuum["retention_period"])


async def told_of_runs(client: PrefectClient) -> tuple[bool, str]:
    """Whether old runs go by themselves, and a sentence about it."""
    try:
        kept = await runs_are_kept_for(client)
    except PrefectHTTPStatusError as error:
        return True, f"how long runs are kept is not told by this API ({error.response.status_code})"
    if kept is None:
        return False, f"Prefect's server keeps runs, logs and artifacts for ever; start it with {REMEDY}"
    return True, f"Prefect's server keeps runs for {kept / timedelta(days=1):g} days"
