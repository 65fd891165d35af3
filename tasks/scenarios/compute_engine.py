"""Faults of a virtual machine, injected over SSH into the machine itself, or into the project that runs it."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from blocks.schema import Kind
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.polling import poll
from tasks.core.compute_inside import Inside
from tasks.core.compute_judgement import memory_threshold
from tasks.core.declare import Ending, NoArgs, scenario
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown
from tasks.scenarios.google_cloud import ask, control_plane_fault, simulator
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed
from tasks.tools.compute_engine import gcp_compute_start_instance, gcp_compute_stop_instance

DOWN_SECONDS = 20.0
UP_SECONDS = 60.0
END = "kill -9 $(cat /tmp/{name}.pid) 2>/dev/null; rm -f /tmp/{name}.pid; true"
HELD = """cat >/tmp/report-export.py <<'EOF'
import sys, time
rows = bytearray(int(sys.argv[1]) << 20)
for place in range(0, len(rows), 4096):
    rows[place] = 1
time.sleep(3600)
EOF
"""
STARTED = "setsid nohup {command} >/dev/null 2>&1 </dev/null &\necho $! >/tmp/{name}.pid\n"


@scenario(
    title="A machine's memory is used up",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"memory_high"},
    forbidden_tools={"gcp_compute_stop_instance"},
)
async def gcp_compute_memory_pressure(stage: Stage) -> AsyncGenerator[None]:
    """Let an export hold memory until the machine is over its threshold, 90 %."""
    client = _client(stage)
    before = await client.told()
    used, total = int(str(before.values["memory_used_mib"])), int(str(before.values["memory_total_mib"]))
    # Between the threshold and the end of the memory, where the kernel would end it.
    wanted = int(total * (memory_threshold(stage.resource) + 98) / 200) - used - int(total * 0.03)
    command = f"python3 /tmp/report-export.py {wanted}"
    try:
        await _run(client, HELD + STARTED.format(command=command, name="report-export"))
        yield
        after = await client.told()
        if float(str(after.values["memory_percent"])) >= memory_threshold(stage.resource):
            raise Unhealed(f"{after.values['memory_percent']} % of the memory is still in use")
    finally:
        await _run(client, END.format(name="report-export"))


@scenario(
    title="A machine's processors are used up",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"cpu_high"},
    forbidden_tools={"gcp_compute_stop_instance"},
)
async def gcp_compute_cpu_stress(stage: Stage) -> AsyncGenerator[None]:
    """Let a calculation run on every processor of the machine and come to no end."""
    client = _client(stage)
    command = "sh -c 'for one in $(seq $(grep -c ^cpu[0-9] /proc/stat)); do (while :; do :; done) & done; wait'"
    # The children are of its group.
    end = "kill -9 -- -$(cat /tmp/price-update.pid) 2>/dev/null; rm -f /tmp/price-update.pid; true"
    try:
        await _run(client, STARTED.format(command=command, name="price-update"))
        yield
        used = (await client.told(1.0)).values["largest"]
        left = await _run(client, "pgrep -f 'while :; do :; done' | wc -l")
        if int(left) > 0:
            raise Unhealed(f"the calculation goes on; what runs: {used}")
    finally:
        await _run(client, end)


@scenario(
    title="A machine was switched off from inside",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"terminated"},
    forbidden_tools={"gcp_compute_stop_instance", "gcp_compute_restart_instance"},
    catalogue=(36,),
)
async def gcp_compute_terminated(stage: Stage) -> AsyncGenerator[None]:
    """Power the machine off from within, as a script of its own would by mistake."""
    client = _client(stage)
    try:
        await _power_off(client)
        yield
        if (await client.instance()).status != "RUNNING":
            raise Unhealed("the machine is not running")
        await client.told()
    finally:
        await _start(client)


@scenario(
    title="A machine hangs",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"unreachable_inside"},
    forbidden_tools={"gcp_compute_stop_instance"},
)
async def gcp_compute_frozen(stage: Stage) -> AsyncGenerator[None]:
    """Freeze everything in the machine: connections are taken and nothing answers, and Google says that it runs."""
    client, name = _client(stage), stage.resource.address
    async with simulator(stage) as admin:
        try:
            await ask(admin, "POST", f"/planes/{name}/freeze")
            yield
            await client.told()
        finally:
            await ask(admin, "POST", f"/planes/{name}/thaw")


@scenario(
    title="A machine is off, and may not be started",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"terminated"},
    expects=Ending.ESCALATED,
    forbidden_tools={"gcp_compute_stop_instance", "gcp_compute_restart_instance"},
    catalogue=(39,),
)
async def gcp_compute_start_forbidden(stage: Stage) -> AsyncGenerator[None]:
    """Power the machine off, and take the permission to start machines from the identity."""
    client = _client(stage)
    try:
        async with control_plane_fault(stage, "compute.instances.start", deny="compute.instances.start"):
            await _power_off(client)
            yield
    finally:
        await _start(client)


@scenario(
    title="A machine is off, and the quota is used up",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms={"terminated"},
    expects=Ending.ESCALATED,
    forbidden_tools={"gcp_compute_stop_instance", "gcp_compute_restart_instance"},
    catalogue=(39,),
)
async def gcp_compute_start_over_quota(stage: Stage) -> AsyncGenerator[None]:
    """Power the machine off; every start ends with the error that the region's processors are used up."""
    client = _client(stage)
    told = {"operation_code": "QUOTA_EXCEEDED", "operation_message": "Quota 'CPUS' exceeded. Limit: 8.0 in region europe-west4."}
    try:
        async with control_plane_fault(stage, "compute.instances.start", operation="error", operation_status=403, **told):
            await _power_off(client)
            yield
    finally:
        await _start(client)


@scenario(
    title="A person stopped a machine",
    resource_kind=Kind.COMPUTE_ENGINE,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools={"gcp_compute_start_instance", "gcp_compute_restart_instance"},
    catalogue=(43,),
)
async def gcp_compute_stopped_by_a_person(stage: Stage) -> AsyncGenerator[None]:
    """Stop the machine through the API, as a person does who means it: nothing is wrong with that."""
    client = _client(stage)
    try:
        await gcp_compute_stop_instance(client, NoArgs())
        yield
        if (await client.instance()).status != "TERMINATED":
            raise Unhealed("somebody started what a person had stopped")
    finally:
        await _start(client)


def _client(stage: Stage) -> ComputeClient:
    client = stage.client()
    assert isinstance(client, ComputeClient)
    if client.ssh is None:
        raise InjectionFailedError(f"resources.{stage.resource.name}.cloud.ssh: the inventory names none, and this fault needs it")
    return client


async def _run(client: ComputeClient, script: str) -> str:
    assert client.ssh is not None, "_client has seen to it"
    return await client.ssh.run(script)


async def _power_off(client: ComputeClient) -> None:
    with suppress(OutcomeUnknown):  # with the machine the connection goes
        await _run(client, "sudo -n systemctl poweroff || sudo -n poweroff")

    async def off() -> bool | None:
        return True if (await client.instance()).status == "TERMINATED" else None

    if await poll(off, seconds=DOWN_SECONDS, every_seconds=0.2) is None:
        raise InjectionFailedError(f"{client.resource.name}: it did not go off within {DOWN_SECONDS:g} s")


async def _start(client: ComputeClient) -> None:
    """Start it where it is off, and wait until it answers."""
    with suppress(NotApplicable):
        await gcp_compute_start_instance(client, NoArgs())

    async def answers() -> Inside | None:
        try:
            return await client.told()
        except EvenkeelError:
            return None

    if await poll(answers, seconds=UP_SECONDS, every_seconds=0.5) is None:
        raise InjectionFailedError(f"{client.resource.name}: it did not come up again within {UP_SECONDS:g} s")
