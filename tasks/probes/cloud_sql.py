"""Cloud SQL: its state by the API, its sessions by a login of its own, its load by Cloud Monitoring."""

import asyncio

from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.cloud_sql import RUNNABLE, CloudSqlClient, SqlInstance
from tasks.clients.google_metrics import Point
from tasks.core.cloud_sql_judgement import judge
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, Unreachable
from tasks.core.models import Reading
from tasks.probes import postgres

METRIC_SECONDS = 4.0
OPERATIONS_SECONDS = 2.0
METRICS = {
    "cpu_percent": ("cloudsql.googleapis.com/database/cpu/utilization", 100.0),
    "memory_percent": ("cloudsql.googleapis.com/database/memory/utilization", 100.0),
    "disk_percent": ("cloudsql.googleapis.com/database/disk/utilization", 100.0),
}
BACKENDS = "cloudsql.googleapis.com/database/postgresql/num_backends"
OF_THE_DATABASE = (
    "answers", "answers_error", "monitor_refused", "connections_used", "connections_max", "connections_reserved", "connections_percent",
    "longest_query_seconds", "longest_query", "blocked_count", "longest_blocked_seconds", "blocker", "top_sessions", "started_at",
    "measured_at", "select_ok", "select_seconds", "select_reason", "select_error",
)  # fmt: skip
"""Of what is read of a PostgreSQL server, that for which something can be done here."""
IDLE_IN_TRANSACTION = "oldest_idle_in_transaction"


@probe(
    service=Kind.CLOUD_SQL,
    title="Cloud SQL for PostgreSQL",
    judge=judge,
    headline="connections_percent",
    timeout_seconds=9,
    trends={"connections_percent": "connections_high", "disk_percent": "disk_high"},
    permissions={"cloudsql.instances.list", "cloudsql.instances.get", "monitoring.timeSeries.list"},
)
async def measure(client: CloudSqlClient, resource: Resource) -> Reading:
    """Measure Cloud SQL: state and size by the API, sessions and a SELECT in the database, load by Cloud Monitoring.

    Values; `sources` says of each group where it comes from, and how old it is:
    - `state`, `activation`, `tier`, `storage_gib`, `storage_grows_by_itself`, `availability`, `region`, `version`, `runs_statements`
      (whether executeSql is allowed): of the Admin API.
    - `answers` (yes, refused, timeout, starting) and the sessions and the SELECT as the application, as `tasks.probes.postgres` has them:
      of the database itself, where the inventory names a login and there is a way to it. `data_plane_error`: why there is none; then
      `connections_used` is Cloud Monitoring's (of the database with most), and `connections_max` that of the flag or the tier's default.
    - `operation`: of a database that does not answer, the type of the operation that is under way, such as RESTART.
    - `cpu_percent`, `memory_percent`, `disk_percent`: Cloud Monitoring's newest point of the last 15 minutes, with
      `cpu_percent_age_seconds` and so on; null where there is none. `monitoring_error`: why it gave none.

    Raises ProbeBroken where there is no such instance, it is not PostgreSQL, the host key or a login is wrong; Unreachable or ToolFailed
    where the API can't be asked.
    """
    instance = await client.instance()
    if instance.state != RUNNABLE or instance.activation == "NEVER":
        return Reading(values=_of_the_api(instance))
    data, load = await asyncio.gather(_data_plane(client, resource, instance), _load(client))
    values = _of_the_api(instance) | load | data
    sources = {**_part(load, "sources"), **_part(data, "sources"), "state": "Admin API"}
    if values.get("answers") is None:
        values |= await _connections_seen_from_outside(client, instance, sources)
    return Reading(values={**values, "sources": sources})


def _of_the_api(instance: SqlInstance) -> dict[str, JsonValue]:
    return {
        "state": instance.state,
        "activation": instance.activation,
        "tier": instance.tier,
        "storage_gib": instance.storage_gib,
        "storage_grows_by_itself": instance.grows_by_itself,
        "availability": instance.availability,
        "region": instance.region,
        "version": instance.version,
        "runs_statements": instance.runs_statements,
    }


async def _data_plane(client: CloudSqlClient, resource: Resource, instance: SqlInstance) -> dict[str, JsonValue]:
    """What the database says; `answers` only where its answer, or its silence, is its own."""
    if not client.has_login:
        return {"data_plane_error": "the inventory names no login for the database"}
    try:
        database = await client.database(instance)
    except Unreachable as error:
        return {"data_plane_error": str(error)}
    read = (await postgres.measure(database, resource)).values
    values = {name: read[name] for name in OF_THE_DATABASE if name in read}
    values |= {name: value for name, value in read.items() if name.startswith(IDLE_IN_TRANSACTION)}
    if values["answers"] != "yes":
        obstacle, operation = await asyncio.gather(client.way.obstacle(), _under_way(client))
        if obstacle:
            return {"data_plane_error": obstacle}
        values |= operation
    return values | {"sources": {"connections": f"PostgreSQL, {client.way.said}"}}


async def _under_way(client: CloudSqlClient) -> dict[str, JsonValue]:
    try:
        found = await client.operations(seconds=OPERATIONS_SECONDS)
    except EvenkeelError as error:
        return {"operation_error": str(error)}
    return {"operation": next((one.type for one in found if not one.done), None)}


async def _load(client: CloudSqlClient) -> dict[str, JsonValue]:
    points, error = await _points(client, [metric for metric, _ in METRICS.values()])
    values: dict[str, JsonValue] = {} if not error else {"monitoring_error": error}
    sources: dict[str, JsonValue] = {}
    for name, (metric, factor) in METRICS.items():
        point = points.get(metric)
        values[name] = None if point is None else round(point.value * factor, 2)
        values[f"{name}_age_seconds"] = None if point is None else point.age_seconds
        sources[name] = "nowhere" if point is None else _aged(point)
    return {**values, "sources": sources}


async def _connections_seen_from_outside(
    client: CloudSqlClient, instance: SqlInstance, sources: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    points, error = await _points(client, [BACKENDS])
    point, most = points.get(BACKENDS), instance.connections
    if point is None:
        return {"monitoring_error": error} if error else {}
    sources["connections"] = _aged(point)
    share = None if most is None else round(100 * point.value / most, 2)
    return {"connections_used": int(point.value), "connections_max": most, "connections_percent": share}


async def _points(client: CloudSqlClient, metrics: list[str]) -> tuple[dict[str, Point], str]:
    """The instance's newest point of each metric, where there is one, and why there may be none."""
    key = f"{client.cloud.project}:{client.resource.address}"
    try:
        async with asyncio.timeout(METRIC_SECONDS):
            found = await asyncio.gather(*(client.cloud.metrics(Kind.CLOUD_SQL, metric) for metric in metrics))
    except (EvenkeelError, TimeoutError) as error:
        return {}, str(error) or f"Cloud Monitoring gave no answer within {METRIC_SECONDS:g} s"
    return {metric: points[key] for metric, points in zip(metrics, found, strict=True) if key in points}, ""


def _aged(point: Point) -> str:
    return f"Cloud Monitoring, {point.age_seconds:.0f} s old"


def _part(values: dict[str, JsonValue], name: str) -> dict[str, JsonValue]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}
