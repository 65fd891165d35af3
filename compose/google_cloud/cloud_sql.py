"""Cloud SQL: instances for PostgreSQL, one operation at a time each, and SQL over the API."""

from collections.abc import Awaitable, Callable
from typing import Any

from compose.google_cloud.listing import matching, page
from compose.google_cloud.operations import Operation
from compose.google_cloud.planes import PlaneFailed
from compose.google_cloud.project import CREATED, Project, SqlInstance, number_of, text_of
from compose.google_cloud.refusals import Refused, not_found
from compose.google_cloud.serving import Call, JsonObject, serves

ROOT = "https://sqladmin.googleapis.com/sql/v1beta4"
MAX_PAGE = 1000
MEBIBYTES = {
    "db-f1-micro": 614,
    "db-g1-small": 1740,
    "db-custom-1-3840": 3840,
    "db-custom-2-7680": 7680,
    "db-custom-4-15360": 15360,
    "db-custom-8-30720": 30720,
}
"""Tiers that can be chosen, with their memory."""
PATCHED = {"tier", "dataDiskSizeGb", "activationPolicy", "settingsVersion", "userLabels"}


def shown(project: Project, database: SqlInstance) -> JsonObject:
    """An instance as the API answers it."""
    described = database.described
    number = number_of(database.name)
    address = database.plane.host if database.plane is not None else f"10.70.{number >> 8 & 255}.{number & 255}"
    settings = {
        "kind": "sql#settings",
        "tier": database.tier,
        "edition": "ENTERPRISE",
        "settingsVersion": str(database.settings_version),
        "activationPolicy": database.activation,
        "availabilityType": described.availability,
        "dataDiskSizeGb": str(database.storage_gib),
        "dataDiskType": "PD_SSD",
        "storageAutoResize": False,
        "pricingPlan": "PER_USE",
        "replicationType": "SYNCHRONOUS",
        "userLabels": dict(database.labels),
        "dataApiAccess": "ALLOW_DATA_API" if described.data_api else "DISALLOW_DATA_API",
        "databaseFlags": [{"name": "cloudsql.iam_authentication", "value": "on" if described.data_api else "off"}],
        "ipConfiguration": {"ipv4Enabled": False, "privateNetwork": f"projects/{project.id}/global/networks/default"},
    }
    return {
        "kind": "sql#instance",
        "name": database.name,
        "project": project.id,
        "region": described.region,
        "gceZone": f"{described.region}-a",
        "state": database.state,
        "backendType": "SECOND_GEN",
        "instanceType": "CLOUD_SQL_INSTANCE",
        "databaseVersion": "POSTGRES_16",
        "connectionName": f"{project.id}:{described.region}:{database.name}",
        "ipAddresses": [{"type": "PRIVATE", "ipAddress": address}],
        "createTime": text_of(CREATED),
        "settings": settings,
        "selfLink": f"{ROOT}/projects/{project.id}/instances/{database.name}",
    }


def shown_operation(project: Project, operation: Operation) -> JsonObject:
    """An operation."""
    link = f"{ROOT}/projects/{project.id}"
    body: JsonObject = {
        "kind": "sql#operation",
        "name": operation.name,
        "operationType": operation.kind,
        "status": operation.status,
        "targetId": operation.target,
        "targetProject": project.id,
        "targetLink": f"{link}/instances/{operation.target}",
        "selfLink": f"{link}/operations/{operation.name}",
        "user": operation.user,
        "insertTime": text_of(operation.inserted),
    }
    if operation.started is not None:
        body["startTime"] = text_of(operation.started)
    if operation.ended is not None:
        body["endTime"] = text_of(operation.ended)
    if operation.failure is not None:
        error = {"kind": "sql#operationError", "code": operation.failure.code, "message": operation.failure.message}
        body["error"] = {"kind": "sql#operationErrors", "errors": [error]}
    return body


def _database(project: Project, call: Call) -> SqlInstance:
    database = project.databases.get(call.path["instance"])
    if database is None:
        raise not_found("sqladmin", call.resource)
    return database


def _running(project: Project, call: Call) -> SqlInstance:
    database = _database(project, call)
    if database.activation == "NEVER":
        raise Refused(400, "Invalid request: Invalid operation since the instance is not running.", reason="instanceNotRunning")
    return database


@serves("sql.instances.list", "cloudsql.instances.list", query=("filter", "maxResults", "pageToken"))
async def list_instances(project: Project, call: Call) -> JsonObject:
    """All of them; a region that does not answer is a warning."""
    missing = call.unreachable() & set(project.regions)
    holds = matching(call.query.get("filter", ""))
    every = [shown(project, one) for one in project.databases.values() if one.described.region not in missing]
    size = int(call.query.get("maxResults", MAX_PAGE))
    wanted, token = page([body for body in every if holds(body)], min(MAX_PAGE, size) or MAX_PAGE, call.query.get("pageToken"))
    body: JsonObject = {"kind": "sql#instancesList"}
    if wanted:
        body["items"] = list(wanted)
    if missing:
        body["warnings"] = [
            {"code": "REGION_UNREACHABLE", "region": region, "message": f"The region {region} is unreachable."}
            for region in sorted(missing)
        ]
    return body | ({"nextPageToken": token} if token else {})


@serves("sql.instances.get", "cloudsql.instances.get")
async def get_instance(project: Project, call: Call) -> JsonObject:
    """One of them."""
    return shown(project, _database(project, call))


def _set_going(project: Project, call: Call, kind: str, database: SqlInstance, change: Callable[[], Awaitable[None]]) -> JsonObject:
    if project.operations.under_way("sqladmin", database.name) is not None:
        raise Refused(
            409,
            "Operation failed because another operation was already in progress. Try your request after the current operation is complete.",
            reason="operationInProgress",
        )

    async def effect() -> None:
        async with database.lock:
            await change()

    return shown_operation(project, project.operations.begin(call, "sqladmin", kind, database.name, database.described.region, effect))


@serves("sql.instances.restart", "cloudsql.instances.restart", mutates=True)
async def restart(project: Project, call: Call) -> JsonObject:
    """Restart the server; connections drop."""
    database = _running(project, call)

    async def change() -> None:
        if database.plane is not None:
            await database.plane.restart()

    return _set_going(project, call, "RESTART", database, change)


@serves("sql.instances.failover", "cloudsql.instances.failover", mutates=True)
async def failover(project: Project, call: Call) -> JsonObject:
    """Change to the standby; there is one only where the availability is REGIONAL."""
    database = _running(project, call)
    if database.described.availability != "REGIONAL":
        raise Refused(400, "Failover operation is only supported for instances with high availability.", reason="failoverNotSupported")
    context = call.body.get("failoverContext", {})
    _check_version(database, context.get("settingsVersion"))

    async def change() -> None:
        if database.plane is not None:
            await database.plane.restart()

    return _set_going(project, call, "FAILOVER", database, change)


def _check_version(database: SqlInstance, version: str | None) -> None:
    if version is not None and int(version) != database.settings_version:
        raise Refused(412, "Condition does not match.", reason="staleData")


@serves("sql.instances.patch", "cloudsql.instances.update", mutates=True)
async def patch(project: Project, call: Call) -> JsonObject:
    """Another tier, more storage, started or stopped, other labels."""
    database = _database(project, call)
    settings: dict[str, Any] = call.body.get("settings", {})
    others = {*(set(call.body) - {"settings"}), *(f"settings.{name}" for name in set(settings) - PATCHED)}
    if others:
        raise Refused(501, f"{', '.join(sorted(others))}: the simulator does not change these")
    _check_version(database, settings.get("settingsVersion"))
    tier = settings.get("tier", database.tier)
    storage_gib = int(settings.get("dataDiskSizeGb", database.storage_gib))
    activation = settings.get("activationPolicy", database.activation)
    if tier not in MEBIBYTES:
        raise Refused(400, f"Invalid request: Invalid Tier ({tier}) for (POSTGRES_16).")
    if storage_gib < database.storage_gib:
        raise Refused(400, "Invalid request: Disk size cannot be decreased.")

    async def change() -> None:
        plane = database.plane
        if plane is not None:
            if activation == "NEVER":
                await plane.stop()
            elif not plane.running:
                await plane.start(tier, storage_gib)
            else:
                await plane.change(tier, storage_gib)
        database.tier, database.storage_gib, database.activation = tier, storage_gib, activation
        database.labels = dict(settings.get("userLabels", database.labels))
        database.settings_version += 1

    return _set_going(project, call, "UPDATE", database, change)


@serves("sql.instances.executeSql", "cloudsql.instances.executeSql", mutates=True)
async def execute_sql(project: Project, call: Call) -> JsonObject:
    """One statement as the caller's IAM user. What the database says against it comes as the answer's status, with HTTP 200."""
    database = _running(project, call)
    if not database.described.data_api:
        raise Refused(400, "Data API access is not allowed for this instance (dataApiAccess).", reason="dataApiAccessDisabled")
    if not call.body.get("autoIamAuthn"):
        raise Refused(400, "Invalid request: autoIamAuthn is needed, or a user with a password's secret.")
    if database.plane is None or not database.plane.running:
        raise Refused(503, "The database can't be reached.")
    name = call.body.get("database", "postgres")
    try:
        answer = await database.plane.execute(name, call.body.get("sqlStatement", ""))
    except PlaneFailed as error:
        call.settle("refused by the database")
        return {"status": {"code": 3, "message": str(error)}, "metadata": {"sqlStatementExecutionTime": "0.001s"}}
    call.settle("done")
    limit = int(call.body.get("rowLimit", len(answer.rows)))
    rows = [{"values": [{"nullValue": True} if value is None else {"value": value} for value in row]} for row in answer.rows[:limit]]
    result: JsonObject = {"columns": [{"name": column, "type": kind} for column, kind in answer.columns], "rows": rows}
    if limit < len(answer.rows):
        result["partialResult"] = True
    return {"results": [result], "metadata": {"sqlStatementExecutionTime": "0.001s"}}


@serves("sql.operations.get", "cloudsql.instances.get")
async def get_operation(project: Project, call: Call) -> JsonObject:
    """One operation as it is now."""
    operation = project.operations.find("sqladmin", call.path["operation"])
    if operation is None:
        raise Refused(404, "The Cloud SQL instance operation does not exist.", reason="operationDoesNotExist")
    return shown_operation(project, operation)


@serves("sql.operations.list", "cloudsql.instances.get", query=("instance", "maxResults", "pageToken"))
async def list_operations(project: Project, call: Call) -> JsonObject:
    """An instance's operations, the newest first."""
    wanted = call.query.get("instance")
    every = [shown_operation(project, one) for one in project.operations.of("sqladmin") if wanted in {None, one.target}]
    here, token = page(every, int(call.query.get("maxResults", "100")) or 100, call.query.get("pageToken"))
    return {"kind": "sql#operationsList"} | ({"items": list(here)} if here else {}) | ({"nextPageToken": token} if token else {})


@serves("sql.tiers.list", "cloudsql.tiers.list")
async def list_tiers(project: Project, _call: Call) -> JsonObject:
    """The tiers that can be chosen."""
    tiers = [
        {"kind": "sql#tier", "tier": tier, "RAM": str(memory * 2**20), "DiskQuota": str(3 * 2**40), "region": project.regions}
        for tier, memory in MEBIBYTES.items()
    ]
    return {"kind": "sql#tiersList", "items": tiers}
