"""Tools for virtual machines of Compute Engine."""

import uuid
from collections.abc import Callable
from typing import Any

from pydantic import JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.compute_engine import ComputeClient, maintenance_of
from tasks.clients.google_calls import Repeat
from tasks.clients.google_operations import Operation, compute_operation, compute_operations
from tasks.clients.polling import poll
from tasks.core.compute_inside import Inside
from tasks.core.declare import NoArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable
from tasks.core.models import Change, Observation

OPERATION_SECONDS = 300.0
BOOT_SECONDS = 120.0
GUEST_SECONDS = 90.0
STUBBORN_SECONDS = 20.0
"""A guest that still runs so long after it was told to reboot does not do it."""
LOOK_SECONDS = 1.0
STEERING = {"compute.instances.get", "compute.instances.list", "compute.zoneOperations.get", "compute.zoneOperations.list"}
NO_ANSWER = (Unreachable, OutcomeUnknown, ToolFailed, ProbeBroken, NotApplicable)
REBOOT = """sudo -n true || exit 1
nohup sh -c 'sleep 0.3; sudo -n systemctl reboot || sudo -n reboot' >/dev/null 2>&1 &
"""


@tool(
    service=Kind.COMPUTE_ENGINE,
    risk=Risk.REVERSIBLE,
    undo="gcp_compute_stop_instance",
    title="Start the machine",
    timeout_seconds=OPERATION_SECONDS + BOOT_SECONDS + 60,
    symptoms={"terminated"},
    permissions={"compute.instances.start", *STEERING},
    cost="A machine that runs is billed by the second for its processors and memory.",
)
async def gcp_compute_start_instance(client: ComputeClient, _args: NoArgs) -> Change:
    """Start a machine that is off, and wait until it answers inside.

    NotApplicable: it is not off, or has the label of maintenance. ToolFailed: Google can't start it, for want of quota say.
    """
    before = await client.instance()
    if before.status not in {"TERMINATED", "STAGING", "PROVISIONING"}:
        raise NotApplicable(f"{client.resource.name}: it is {before.status}, not off")
    if (reason := maintenance_of(before.labels)) is not None:
        raise NotApplicable(f"{client.resource.name}: its label says maintenance: {reason}")
    await _carried_out(client, before, "start", "StartInstanceRequest")
    after = await _in_state(client, "RUNNING")
    await _answering(client, BOOT_SECONDS)
    return Change(before=_shown(before), after=_shown(after), undo={})


def _switches_off(_args: Any, _observation: Observation) -> str:
    return "everything that runs on the machine"


@tool(
    service=Kind.COMPUTE_ENGINE,
    risk=Risk.DISRUPTIVE,
    title="Stop the machine",
    timeout_seconds=OPERATION_SECONDS + 60,
    symptoms={"terminated"},
    aim=_switches_off,
    permissions={"compute.instances.stop", *STEERING},
)
async def gcp_compute_stop_instance(client: ComputeClient, _args: NoArgs) -> Change:
    """Stop the machine, as gcp_compute_start_instance is taken back; its disks stay.

    NotApplicable: it is not running.
    """
    before = await client.instance()
    if before.status not in {"RUNNING", "STOPPING"}:
        raise NotApplicable(f"{client.resource.name}: it is {before.status}, not running")
    await _carried_out(client, before, "stop", "StopInstanceRequest")
    return Change(before=_shown(before), after=_shown(await _in_state(client, "TERMINATED")))


@tool(
    service=Kind.COMPUTE_ENGINE,
    risk=Risk.DISRUPTIVE,
    title="Restart the machine",
    timeout_seconds=GUEST_SECONDS + OPERATION_SECONDS + BOOT_SECONDS + 60,
    symptoms={"memory_high", "cpu_high", "unreachable_inside"},
    loss="what runs on the machine, and what that had not written to its disk",
    permissions={"compute.instances.reset", *STEERING},
)
async def gcp_compute_restart_instance(client: ComputeClient, _args: NoArgs) -> Change:
    """Reboot the machine from inside; where that does not work, reset it as by its button.

    NotApplicable: it does not run, or has the label of maintenance. ToolFailed: it did not come back.
    """
    before = await client.instance()
    if before.status != "RUNNING":
        raise NotApplicable(f"{client.resource.name}: it is {before.status}; gcp_compute_start_instance is for what is off")
    if (reason := maintenance_of(before.labels)) is not None:
        raise NotApplicable(f"{client.resource.name}: its label says maintenance: {reason}")
    booted = await _told(client)
    after = None if booted is None else await _rebooted(client, booted)
    how = "reboot from inside"
    if after is None:
        how = f"reset, {await _carried_out(client, before, 'reset', 'ResetInstanceRequest')}"
        after = await _answering(client, BOOT_SECONDS, than=booted)
    now = await client.instance()
    return Change(before=_shown(before) | _boot(booted), after=_shown(now) | _boot(after) | {"how": how})


async def _rebooted(client: ComputeClient, booted: Inside) -> Inside | None:
    """The machine after a reboot from inside; None where it refuses or does not do it."""
    assert client.ssh is not None, "it has just answered"
    try:
        await client.ssh.run(REBOOT)
    except OutcomeUnknown:
        pass  # the connection may well be gone before the script's end
    except (Unreachable, ToolFailed, ProbeBroken):
        return None
    client.cloud.progress(f"reboot of {client.resource.name} from inside", None)

    async def gone() -> bool | None:
        found = await _told(client)
        return True if found is None or found.boot_id != booted.boot_id else None

    if await poll(gone, seconds=STUBBORN_SECONDS, every_seconds=LOOK_SECONDS) is None:
        return None
    return await _back(client, GUEST_SECONDS, booted)


async def _answering(client: ComputeClient, seconds: float, than: Inside | None = None) -> Inside | None:
    """The machine once it answers, in another boot where one is given; None without SSH. ToolFailed where it does not in time."""
    if client.ssh is None:
        return None
    client.cloud.progress(f"boot of {client.resource.name}", None)
    found = await _back(client, seconds, than)
    if found is None:
        raise ToolFailed(f"{client.resource.name}: Google runs it, and {seconds:g} s later nothing answers over SSH")
    return found


async def _back(client: ComputeClient, seconds: float, than: Inside | None) -> Inside | None:
    async def back() -> Inside | None:
        found = await _told(client)
        return None if found is None or (than is not None and found.boot_id == than.boot_id) else found

    return await poll(back, seconds=seconds, every_seconds=LOOK_SECONDS)


async def _told(client: ComputeClient) -> Inside | None:
    try:
        return await client.told()
    except NO_ANSWER:
        return None


async def _carried_out(client: ComputeClient, instance: Any, verb: str, request_type: str) -> str:
    """Start, stop or reset it; the name of the operation, which may be one that was under way."""
    project, zone = client.cloud.project, instance.zone.rpartition("/")[2]
    request_id = str(uuid.uuid4())

    def send(timeout: float) -> Operation:
        from google.cloud import compute_v1

        request = getattr(compute_v1, request_type)(project=project, zone=zone, instance=instance.name, request_id=request_id)
        act: Callable[..., Any] = getattr(client.cloud.instances, f"{verb}_unary")
        return compute_operation(client.cloud, zone, act(request, timeout=timeout, retry=None))

    return await client.cloud.carry_out(
        f"{verb} of {client.resource.name}",
        Kind.COMPUTE_ENGINE,
        verb,
        listed=compute_operations(client.cloud, zone, instance.id),
        send=send,
        repeat=Repeat.IDEMPOTENT,
        seconds=OPERATION_SECONDS,
    )


async def _in_state(client: ComputeClient, wanted: str) -> Any:
    """The instance as it is now; ToolFailed where it is in another state than the operation left it in."""
    found = await client.instance()
    if found.status != wanted:
        raise ToolFailed(f"{client.resource.name}: the operation is done, and the machine is {found.status}, not {wanted}")
    return found


def _shown(instance: Any) -> dict[str, JsonValue]:
    return {"state": instance.status, "zone": instance.zone.rpartition("/")[2], "machine_type": instance.machine_type.rpartition("/")[2]}


def _boot(inside: Inside | None) -> dict[str, JsonValue]:
    return {"boot_id": None if inside is None else inside.boot_id}
