"""Compute Engine: instances, what starts and stops them, and the zones' operations."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from compose.google_cloud.listing import matching, page
from compose.google_cloud.operations import Operation
from compose.google_cloud.project import CREATED, Machine, Project, number_of, text_of
from compose.google_cloud.refusals import Refused, not_found
from compose.google_cloud.serving import Call, JsonObject, serves

ROOT = "https://www.googleapis.com/compute/v1"
WAIT_SECONDS = 120.0
LISTING = ("filter", "maxResults", "pageToken", "includeAllScopes")


def link(project: Project, *parts: str) -> str:
    """The address of something in the project."""
    return "/".join((ROOT, "projects", project.id, *parts))


def numeric_id(name: str) -> str:
    """The number that Compute Engine and Monitoring know an instance by."""
    return str(4_000_000_000_000_000_000 + number_of(name))


def shown(project: Project, machine: Machine) -> JsonObject:
    """An instance as the API answers it."""
    zone = machine.described.zone
    disk = {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": "READ_WRITE",
        "source": link(project, "zones", zone, "disks", machine.name),
        "deviceName": machine.name,
        "index": 0,
        "boot": True,
        "autoDelete": True,
        "interface": "SCSI",
        "diskSizeGb": "10",
    }
    interface = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": link(project, "global", "networks", "default"),
        "subnetwork": link(project, "regions", zone.rsplit("-", 1)[0], "subnetworks", "default"),
        "networkIP": machine.address,
        "stackType": "IPV4_ONLY",
    }
    return {
        "kind": "compute#instance",
        "id": numeric_id(machine.name),
        "name": machine.name,
        "creationTimestamp": text_of(CREATED),
        "lastStartTimestamp": text_of(machine.started),
        **({} if machine.stopped is None else {"lastStopTimestamp": text_of(machine.stopped)}),
        "zone": link(project, "zones", zone),
        "machineType": link(project, "zones", zone, "machineTypes", machine.machine_type),
        "status": machine.status,
        "labels": dict(machine.labels),
        "labelFingerprint": "42WmSpB8rSM=",
        "selfLink": link(project, "zones", zone, "instances", machine.name),
        "networkInterfaces": [interface],
        "disks": [disk],
        "scheduling": {"automaticRestart": True, "onHostMaintenance": "MIGRATE", "preemptible": False},
        "deletionProtection": False,
        "canIpForward": False,
        "startRestricted": False,
    }


def shown_operation(project: Project, operation: Operation) -> JsonObject:
    """A zone's operation."""
    zone = operation.location
    body: JsonObject = {
        "kind": "compute#operation",
        "id": str(operation.number),
        "name": operation.name,
        "zone": link(project, "zones", zone),
        "operationType": operation.kind,
        "targetLink": link(project, "zones", zone, "instances", operation.target),
        "targetId": numeric_id(operation.target),
        "status": operation.status,
        "user": operation.user,
        "progress": operation.progress,
        "insertTime": text_of(operation.inserted),
        "selfLink": link(project, "zones", zone, "operations", operation.name),
    }
    if operation.request_id is not None:
        body["clientOperationId"] = operation.request_id
    if operation.started is not None:
        body["startTime"] = text_of(operation.started)
    if operation.ended is not None:
        body["endTime"] = text_of(operation.ended)
    if operation.failure is not None:
        failure = operation.failure
        body["error"] = {"errors": [{"code": failure.code, "message": failure.message}]}
        if failure.http_status:
            body |= {"httpErrorStatusCode": failure.http_status, "httpErrorMessage": "ERROR"}
    return body


def _machine(project: Project, call: Call) -> Machine:
    project.notice_powered_off()
    name = call.path["instance"]
    machine = project.machines.get(name) or next((one for one in project.machines.values() if numeric_id(one.name) == name), None)
    if machine is None or machine.described.zone != call.path["zone"]:
        raise not_found("compute", call.resource)
    return machine


def _size(call: Call) -> int:
    return min(500, int(call.query.get("maxResults", "500"))) or 500


@serves("compute.instances.aggregatedList", "compute.instances.list", query=LISTING)
async def aggregated_list(project: Project, call: Call) -> JsonObject:
    """Every zone's instances; zones without any carry a warning instead."""
    project.notice_powered_off()
    missing = call.unreachable() & set(project.zones)
    holds = matching(call.query.get("filter", ""))
    every = [one for one in project.machines.values() if one.described.zone not in missing]
    bodies = [body for body in (shown(project, one) for one in every) if holds(body)]
    wanted, token = page(bodies, _size(call), call.query.get("pageToken"))
    items: dict[str, Any] = {}
    for zone in project.zones:
        scope = f"zones/{zone}"
        here = [body for body in wanted if body["zone"].endswith(f"/{zone}")]
        if zone in missing:
            items[scope] = {"warning": _warning("UNREACHABLE", f"The zone {zone} can't be reached.", scope)}
        elif here:
            items[scope] = {"instances": here}
        else:
            items[scope] = {"warning": _warning("NO_RESULTS_ON_PAGE", f"There are no results for scope '{scope}' on this page.", scope)}
    address = link(project, "aggregated", "instances")
    body: JsonObject = {"kind": "compute#instanceAggregatedList", "id": address, "items": items, "selfLink": address}
    if missing:
        body["unreachables"] = [f"zones/{zone}" for zone in sorted(missing)]
    return body | ({"nextPageToken": token} if token else {})


def _warning(code: str, message: str, scope: str) -> JsonObject:
    return {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}


@serves("compute.instances.list", "compute.instances.list", query=LISTING)
async def list_instances(project: Project, call: Call) -> JsonObject:
    """One zone's instances."""
    project.notice_powered_off()
    zone = _zone(project, call)
    if zone in call.unreachable():
        raise Refused(503, f"Backend error: {zone} did not answer.")
    holds = matching(call.query.get("filter", ""))
    here = [body for body in (shown(project, one) for one in project.machines.values() if one.described.zone == zone) if holds(body)]
    return listed(here, call, "compute#instanceList", link(project, "zones", zone, "instances"))


def listed(items: list[JsonObject], call: Call, kind: str, address: str) -> JsonObject:
    """A page of a list, in Compute Engine's frame."""
    wanted, token = page(items, _size(call), call.query.get("pageToken"))
    body: JsonObject = {"kind": kind, "id": address, "selfLink": address}
    return body | ({"items": list(wanted)} if wanted else {}) | ({"nextPageToken": token} if token else {})


def _zone(project: Project, call: Call) -> str:
    zone = call.path["zone"]
    if zone not in project.zones:
        raise Refused(400, f"Invalid value for field 'zone': '{zone}'. Unknown zone.")
    return zone


@serves("compute.instances.get", "compute.instances.get")
async def get_instance(project: Project, call: Call) -> JsonObject:
    """One of them."""
    return shown(project, _machine(project, call))


async def _set_going(
    project: Project, call: Call, *, already: str | None, meanwhile: str | None, change: Callable[[Machine], Awaitable[None]]
) -> JsonObject:
    """Begin an operation on a machine; where it is `already` in that state there is nothing to do."""
    machine = _machine(project, call)
    repeated = project.operations.repeated(call, machine.name)
    if repeated is not None:
        call.settle("repeated")
        return shown_operation(project, repeated)
    if project.operations.under_way("compute", machine.name) is not None:
        raise Refused(400, f"The resource '{call.resource}' is not ready", reason="resourceNotReady")
    kind, zone, before = call.method.id.rsplit(".", 1)[1], machine.described.zone, machine.status
    if before == already:
        return shown_operation(project, project.operations.begin(call, "compute", kind, machine.name, zone, None))

    async def effect() -> None:
        async with machine.lock:
            await change(machine)

    def undo() -> None:
        machine.status = before

    operation = project.operations.begin(call, "compute", kind, machine.name, zone, effect, undo)
    machine.status = meanwhile or before
    return shown_operation(project, operation)


@serves("compute.instances.start", "compute.instances.start", mutates=True, query=("requestId",))
async def start(project: Project, call: Call) -> JsonObject:
    """Boot it."""

    async def boot(machine: Machine) -> None:
        if machine.plane is not None:
            await machine.plane.boot()
        machine.status, machine.started = "RUNNING", datetime.now(UTC)

    return await _set_going(project, call, already="RUNNING", meanwhile="STAGING", change=boot)


@serves("compute.instances.stop", "compute.instances.stop", mutates=True, query=("requestId", "discardLocalSsd", "noGracefulShutdown"))
async def stop(project: Project, call: Call) -> JsonObject:
    """Shut it down; a stopped instance is TERMINATED."""

    async def shut_down(machine: Machine) -> None:
        if machine.plane is not None:
            await machine.plane.shutdown()
        machine.status, machine.stopped = "TERMINATED", datetime.now(UTC)

    return await _set_going(project, call, already="TERMINATED", meanwhile="STOPPING", change=shut_down)


@serves("compute.instances.reset", "compute.instances.reset", mutates=True, query=("requestId",))
async def reset(project: Project, call: Call) -> JsonObject:
    """A hard reset; the guest has no say, and the status stays RUNNING."""
    if _machine(project, call).status != "RUNNING":
        raise Refused(400, f"The resource '{call.resource}' is not ready", reason="resourceNotReady")

    async def press(machine: Machine) -> None:
        if machine.plane is not None:
            await machine.plane.reset()

    return await _set_going(project, call, already=None, meanwhile=None, change=press)


def _operation(project: Project, call: Call) -> Operation:
    operation = project.operations.find("compute", call.path["operation"])
    if operation is None or operation.location != call.path["zone"]:
        raise not_found("compute", call.resource)
    return operation


@serves("compute.zoneOperations.get", "compute.zoneOperations.get")
async def get_operation(project: Project, call: Call) -> JsonObject:
    """One operation as it is now."""
    return shown_operation(project, _operation(project, call))


@serves("compute.zoneOperations.wait", "compute.zoneOperations.get")
async def wait(project: Project, call: Call) -> JsonObject:
    """One operation when it is done, or after two minutes."""
    operation = _operation(project, call)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await operation.done.wait()
    except TimeoutError:
        pass
    return shown_operation(project, operation)


@serves("compute.zoneOperations.list", "compute.zoneOperations.list", query=("filter", "maxResults", "pageToken", "orderBy"))
async def list_operations(project: Project, call: Call) -> JsonObject:
    """A zone's operations, by name, or the newest first where that is asked for."""
    project.notice_powered_off()
    zone = _zone(project, call)
    holds = matching(call.query.get("filter", ""))
    every = [shown_operation(project, one) for one in project.operations.of("compute") if one.location == zone]
    order = call.query.get("orderBy", "name")
    if order not in {"name", "creationTimestamp desc"}:
        raise Refused(400, f"Invalid value for field 'orderBy': '{order}'.")
    if order == "name":
        every.sort(key=lambda body: str(body["name"]))
    address = link(project, "zones", zone, "operations")
    return listed([body for body in every if holds(body)], call, "compute#operationList", address)
