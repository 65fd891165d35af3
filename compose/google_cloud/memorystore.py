"""Memorystore for Redis: what each tier can and can't do, and operations as newer APIs have them."""

from collections.abc import Awaitable, Callable
from typing import Any

from google.cloud.redis_v1.types import FailoverInstanceRequest, Instance

from compose.google_cloud.listing import page
from compose.google_cloud.operations import Operation, OperationFailed
from compose.google_cloud.project import CREATED, Project, RedisInstance, number_of, text_of
from compose.google_cloud.refusals import Refused, not_found
from compose.google_cloud.serving import Call, JsonObject, serves

TYPES = "type.googleapis.com/google.cloud.redis.v1"
MAX_PAGE = 1000
STATUS_CODES = {"INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "FAILED_PRECONDITION": 9, "INTERNAL_ERROR": 13, "UNAVAILABLE": 14}
MASKED = {"memorySizeGb", "displayName", "labels", "redisConfigs"}
ENUMERATIONS: dict[str, Any] = {
    "state": Instance.State,
    "tier": Instance.Tier,
    "connectMode": Instance.ConnectMode,
    "transitEncryptionMode": Instance.TransitEncryptionMode,
    "readReplicasMode": Instance.ReadReplicasMode,
    "dataProtectionMode": FailoverInstanceRequest.DataProtectionMode,
}


def numbered(body: Any) -> Any:
    """The same answer with numbers for enumerations, as `$alt=json;enum-encoding=int` asks."""
    if isinstance(body, list):
        return [numbered(item) for item in body]
    if not isinstance(body, dict):
        return body
    return {
        name: int(ENUMERATIONS[name][value]) if name in ENUMERATIONS and isinstance(value, str) else numbered(value)
        for name, value in body.items()
    }


def shown(project: Project, cache: RedisInstance) -> JsonObject:
    """An instance as the API answers it."""
    described, number = cache.described, number_of(cache.name)
    body: JsonObject = {
        "name": full_name(project, cache),
        "displayName": cache.display_name,
        "locationId": f"{described.region}-a",
        "currentLocationId": f"{described.region}-a",
        "createTime": text_of(CREATED),
        "state": cache.state,
        "tier": described.tier,
        "memorySizeGb": cache.memory_gib,
        "redisVersion": "REDIS_7_2",
        "redisConfigs": dict(cache.redis_configs),
        "labels": dict(cache.labels),
        "host": cache.plane.host if cache.plane is not None else f"10.71.{number >> 8 & 255}.{number & 255}",
        "port": cache.plane.port if cache.plane is not None else 6379,
        "authEnabled": described.auth,
        "connectMode": "PRIVATE_SERVICE_ACCESS",
        "transitEncryptionMode": "DISABLED",
        "authorizedNetwork": f"projects/{project.id}/global/networks/default",
        "readReplicasMode": "READ_REPLICAS_DISABLED",
    }
    if described.tier == "STANDARD_HA":
        body |= {"alternativeLocationId": f"{described.region}-b", "replicaCount": 1}
    return body


def full_name(project: Project, cache: RedisInstance) -> str:
    """As `projects/p/locations/l/instances/i`."""
    return f"projects/{project.id}/locations/{cache.described.region}/instances/{cache.name}"


def shown_operation(project: Project, operation: Operation) -> JsonObject:
    """An operation; done, it holds the instance or an error."""
    cache = project.caches[operation.target]
    metadata = {
        "@type": f"{TYPES}.OperationMetadata",
        "createTime": text_of(operation.inserted),
        "target": full_name(project, cache),
        "verb": operation.kind,
        "apiVersion": "v1",
    }
    if operation.ended is not None:
        metadata["endTime"] = text_of(operation.ended)
    body: JsonObject = {
        "name": f"projects/{project.id}/locations/{operation.location}/operations/{operation.name}",
        "metadata": metadata,
        "done": operation.status == "DONE",
    }
    if operation.failure is not None:
        body["error"] = {"code": STATUS_CODES.get(operation.failure.code, 13), "message": operation.failure.message}
    elif operation.status == "DONE":
        body["response"] = {"@type": f"{TYPES}.Instance", **shown(project, cache)}
    return body


def _cache(project: Project, call: Call) -> RedisInstance:
    _, _, _, region, _, name = call.path["name"].split("/")
    cache = project.caches.get(name)
    if cache is None or cache.described.region != region:
        raise not_found("redis", call.resource)
    return cache


@serves("redis.projects.locations.list", "redis.locations.list", query=("pageSize", "pageToken"))
async def list_locations(project: Project, call: Call) -> JsonObject:
    """The regions that there are."""
    every = [{"name": f"projects/{project.id}/locations/{region}", "locationId": region} for region in project.regions]
    wanted, token = page(every, _size(call), call.query.get("pageToken"))
    return {"locations": list(wanted)} | ({"nextPageToken": token} if token else {})


def _size(call: Call) -> int:
    return min(MAX_PAGE, int(call.query.get("pageSize", MAX_PAGE))) or MAX_PAGE


@serves("redis.projects.locations.instances.list", "redis.instances.list", query=("pageSize", "pageToken"))
async def list_instances(project: Project, call: Call) -> JsonObject:
    """A region's, or with `-` everyone's; a region that does not answer comes as `unreachable` and as an instance named `-`."""
    region = call.path["parent"].rsplit("/", 1)[1]
    missing = call.unreachable() & set(project.regions)
    if region in missing:
        raise Refused(503, f"Location {region} is unreachable.")
    every = [shown(project, one) for one in project.caches.values() if region in {"-", one.described.region}]
    every = [body for body in every if body["name"].split("/")[3] not in missing]
    every += [
        {"name": f"projects/{project.id}/locations/{one}/instances/-", "statusMessage": "location not available for ListInstances"}
        for one in sorted(missing)
    ]
    wanted, token = page(every, _size(call), call.query.get("pageToken"))
    body: JsonObject = {"instances": list(wanted)} if wanted else {}
    if missing:
        body["unreachable"] = sorted(missing)
    return body | ({"nextPageToken": token} if token else {})


@serves("redis.projects.locations.instances.get", "redis.instances.get")
async def get_instance(project: Project, call: Call) -> JsonObject:
    """One of them."""
    return shown(project, _cache(project, call))


@serves("redis.projects.locations.instances.getAuthString", "redis.instances.getAuthString")
async def get_auth_string(project: Project, call: Call) -> JsonObject:
    """The password of its Redis."""
    cache = _cache(project, call)
    if not cache.described.auth:
        raise Refused(400, "AUTH is not enabled for this instance.", rpc_status="FAILED_PRECONDITION")
    return {"authString": (cache.plane.auth if cache.plane is not None else None) or ""}


def _set_going(
    project: Project, call: Call, kind: str, meanwhile: str, cache: RedisInstance, change: Callable[[], Awaitable[None]]
) -> JsonObject:
    if project.operations.under_way("redis", cache.name) is not None:
        raise Refused(409, "unable to queue the operation", rpc_status="ABORTED")

    async def effect() -> None:
        async with cache.lock:
            await change()
        undo()

    def undo() -> None:
        cache.state = "READY"

    operation = project.operations.begin(call, "redis", kind, cache.name, cache.described.region, effect, undo)
    cache.state = meanwhile
    return shown_operation(project, operation)


@serves("redis.projects.locations.instances.patch", "redis.instances.update", mutates=True, query=("updateMask",))
async def patch(project: Project, call: Call) -> JsonObject:
    """Another size (BASIC: restarts empty), name, labels or parameters."""
    cache = _cache(project, call)
    mask = {_camel(part) for part in call.query.get("updateMask", "").split(",") if part}
    if not mask:
        raise Refused(400, "update_mask is required.")
    if mask - MASKED:
        raise Refused(501, f"{', '.join(sorted(mask - MASKED))}: the simulator does not change these")
    memory_gib = int(call.body.get("memorySizeGb", 0)) if "memorySizeGb" in mask else cache.memory_gib
    if not 1 <= memory_gib <= 300:
        raise Refused(400, f"memory_size_gb: {memory_gib} is not between 1 and 300.")

    async def change() -> None:
        if memory_gib != cache.memory_gib:
            await _resize(cache, memory_gib)
        if "displayName" in mask:
            cache.display_name = call.body.get("displayName", "")
        if "labels" in mask:
            cache.labels = dict(call.body.get("labels", {}))
        if "redisConfigs" in mask:
            cache.redis_configs = dict(call.body.get("redisConfigs", {}))

    return _set_going(project, call, "update", "UPDATING", cache, change)


async def _resize(cache: RedisInstance, memory_gib: int) -> None:
    if cache.plane is not None:
        if memory_gib < await cache.plane.stored_gib():
            raise OperationFailed("FAILED_PRECONDITION", "The stored data is larger than the requested size.")
        await cache.plane.resize(memory_gib, keeps_data=cache.described.tier == "STANDARD_HA")
    cache.memory_gib = memory_gib


@serves("redis.projects.locations.instances.failover", "redis.instances.failover", mutates=True)
async def failover(project: Project, call: Call) -> JsonObject:
    """The replica takes the primary's place; BASIC has none."""
    cache = _cache(project, call)
    if cache.described.tier != "STANDARD_HA":
        raise Refused(400, "Failover is only supported for STANDARD_HA instances.", rpc_status="FAILED_PRECONDITION")

    async def change() -> None:
        if cache.plane is not None:
            await cache.plane.failover()

    return _set_going(project, call, "failover", "FAILING_OVER", cache, change)


@serves("redis.projects.locations.operations.get", "redis.operations.get")
async def get_operation(project: Project, call: Call) -> JsonObject:
    """One operation as it is now."""
    operation = project.operations.find("redis", call.path["name"].rsplit("/", 1)[1])
    if operation is None:
        raise not_found("redis", call.resource)
    return shown_operation(project, operation)


@serves("redis.projects.locations.operations.list", "redis.operations.list", query=("filter", "pageSize", "pageToken"))
async def list_operations(project: Project, call: Call) -> JsonObject:
    """A region's operations, the newest first."""
    if call.query.get("filter"):
        raise Refused(501, "filter: the simulator does not filter operations of Memorystore")
    region = call.path["name"].rsplit("/", 1)[1]
    every = [shown_operation(project, one) for one in project.operations.of("redis") if region in {"-", one.location}]
    wanted, token = page(every, _size(call), call.query.get("pageToken"))
    return ({"operations": list(wanted)} if wanted else {}) | ({"nextPageToken": token} if token else {})


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(part.capitalize() for part in rest)
