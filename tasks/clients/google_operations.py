"""Operations that Google carries out in its own time: which are under way, how far they are, and how they end."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.clients.google_calls import Repeat
from tasks.core.errors import EvenkeelError, OutcomeUnknown, ToolFailed

if TYPE_CHECKING:
    from tasks.clients.google_access import GoogleCloud

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0
REASON_LENGTH = 300
RECENT = 20
PAGE = 500


@dataclass(frozen=True)
class Operation:
    """An operation as it stood when it was read. `look` reads it anew; it blocks and gets its timeout."""

    name: str
    type: str
    """Google's word, such as start, RESTART or update."""
    done: bool
    look: Callable[[float], "Operation"] = field(repr=False, compare=False)
    percent: float | None = None
    error: str = ""
    """Why it failed; empty: it has not."""


async def wait_until_done(cloud: "GoogleCloud", what: str, operation: Operation, seconds: float) -> None:
    """As `GoogleCloud.wait` says. A refused or lost question ends nothing: the operation goes on without it."""
    ends_at, pause, told = time.monotonic() + seconds, FIRST_PAUSE_SECONDS, object()
    while not operation.done:
        if operation.percent != told:
            told = operation.percent
            cloud.progress(what, operation.percent)
        remaining = ends_at - time.monotonic()
        if remaining <= pause:
            raise OutcomeUnknown(f"{what}: operation {operation.name} still runs after {seconds:g} s; it goes on by itself")
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE_SECONDS)
        try:
            operation = await cloud.call(f"operation of {what}", operation.look, repeat=Repeat.READ, seconds=remaining - pause)
        except EvenkeelError as error:
            raise OutcomeUnknown(f"{what}: it was begun, and its end can't be seen: {error}") from error
    if operation.error:
        raise ToolFailed(f"{what}: operation {operation.name} failed: {operation.error}")
    cloud.progress(what, 100)


def compute_operation(cloud: "GoogleCloud", zone: str, raw: Any) -> Operation:
    """Of a compute_v1.Operation."""
    from google.cloud import compute_v1

    def look(timeout: float) -> Operation:
        request = compute_v1.GetZoneOperationRequest(project=cloud.project, zone=zone, operation=raw.name)
        return compute_operation(cloud, zone, cloud.zone_operations.get(request, timeout=timeout, retry=None))

    told = "; ".join(f"{one.code} {one.message}".strip() for one in raw.error.errors)
    # Either may be set alone.
    failed = raw.http_error_message or f"HTTP status {raw.http_error_status_code}" if raw.http_error_status_code else ""
    done = raw.status in {compute_v1.Operation.Status.DONE, "DONE"} or getattr(raw.status, "name", "") == "DONE"
    return Operation(raw.name, raw.operation_type, done, look, float(raw.progress), (told or failed)[:REASON_LENGTH])


def compute_operations(cloud: "GoogleCloud", zone: str, target_id: int) -> Callable[[float], list[Operation]]:
    """The operations of one instance, by its numeric id, newest first."""
    return lambda timeout: [compute_operation(cloud, zone, one) for one in read_compute_operations(cloud, zone, target_id, timeout)]


def read_compute_operations(cloud: "GoogleCloud", zone: str, target_id: int, timeout: float) -> list[Any]:
    """The same as compute_v1.Operation, newest first; Google keeps them for some weeks. Blocks: for within `GoogleCloud.call`."""
    from google.cloud import compute_v1

    request = compute_v1.ListZoneOperationsRequest(project=cloud.project, zone=zone, filter=f"targetId={target_id}", max_results=PAGE)
    return sorted(cloud.zone_operations.list(request, timeout=timeout, retry=None), key=lambda one: str(one.insert_time), reverse=True)


def sql_operation(cloud: "GoogleCloud", raw: dict[str, Any]) -> Operation:
    """Of a Cloud SQL operation."""

    def look(timeout: float) -> Operation:
        request = cloud.sql.operations().get(project=cloud.project, operation=raw["name"])
        return sql_operation(cloud, cloud.execute(request, timeout))

    errors = (raw.get("error") or {}).get("errors") or ()
    told = "; ".join(f"{one.get('code', '')} {one.get('message', '')}".strip() for one in errors)
    return Operation(raw["name"], raw.get("operationType", ""), raw.get("status") == "DONE", look, None, told[:REASON_LENGTH])


def sql_operations(cloud: "GoogleCloud", instance: str) -> Callable[[float], list[Operation]]:
    """The operations of one Cloud SQL instance, newest first."""

    def listed(timeout: float) -> list[Operation]:
        request = cloud.sql.operations().list(project=cloud.project, instance=instance, maxResults=RECENT)
        return [sql_operation(cloud, one) for one in cloud.execute(request, timeout).get("items") or ()]

    return listed


def redis_operation(cloud: "GoogleCloud", raw: dict[str, Any]) -> Operation:
    """Of a Memorystore operation as a dict, or as {"name": ...} where nothing more is known of it."""

    def look(timeout: float) -> Operation:
        request = cloud.redis_operations.projects().locations().operations().get(name=raw["name"])
        return redis_operation(cloud, cloud.execute(request, timeout))

    error = raw.get("error") or {}
    told = f"{error.get('code', '')} {error.get('message', '')}".strip()
    verb = str((raw.get("metadata") or {}).get("verb", ""))
    return Operation(raw["name"], verb, bool(raw.get("done")), look, None, told[:REASON_LENGTH])


def redis_operations(cloud: "GoogleCloud", instance: str) -> Callable[[float], list[Operation]]:
    """The operations of one Memorystore instance, given by its full resource name."""
    location = instance.rsplit("/instances/", 1)[0]

    def listed(timeout: float) -> list[Operation]:
        request = cloud.redis_operations.projects().locations().operations().list(name=location)
        found = cloud.execute(request, timeout).get("operations") or ()
        return [redis_operation(cloud, one) for one in found if (one.get("metadata") or {}).get("target") == instance]

    return listed
