"""Faults of containers, on the lab that runs in them."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from blocks.schema import Kind
from tasks.clients.container_facts import cpu_limit, memory_limit_mib
from tasks.clients.containers import ContainerClient
from tasks.core.declare import Ending, RuntimeType, scenario
from tasks.core.diagnosis import Cause
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

MIB = 2**20
REPLICA = "shop-replica-container"
SETTINGS = "/run/secrets"
ROOM_MIB = 6
REPORT_MIB = 48
STARVED_CPUS = 0.05
WORK_SECONDS = 90
PORT_SECONDS = 10.0
IN_CONTAINERS: tuple[RuntimeType, ...] = ("container",)


def _client(stage: Stage) -> ContainerClient:
    client = stage.client()
    assert isinstance(client, ContainerClient), "the runner chose a resource of kind container"
    return client


async def _run(client: ContainerClient, *command: str, detach: bool = False) -> int | None:
    """Run a command in the container as root; its exit code, or None for one that goes on."""

    def run(engine: Any) -> int | None:
        code: int | None = engine.containers.get(client.name).exec_run(list(command), user="root", detach=detach).exit_code
        return code

    return await client.engine.call(client.name, run, sent=True)


async def _ensure_running(client: ContainerClient) -> None:
    state = (await client.inspect())["State"]
    if state["Paused"] or not state["Running"]:
        await client.runtime.start()


@scenario(
    title="A container is killed",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"container_down"},
    forbidden_tools={"docker_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(1,),
)
async def container_killed(stage: Stage) -> AsyncGenerator[None]:
    """Kill a container; to the engine that is a stop by hand, so it does not start it again."""
    client = _client(stage)
    before = (await client.inspect())["Id"]
    try:
        await client.engine.call(client.name, lambda engine: engine.api.kill(client.name), sent=True)
        yield
        if (await client.inspect())["Id"] != before:
            raise Unhealed(f"{client.name} is another container than before")
    finally:
        await _ensure_running(client)


@scenario(
    title="A container's settings are gone, and it ends at each start",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"crash_looping"},
    expects=Ending.ESCALATED,
    runtimes=IN_CONTAINERS,
    catalogue=(2,),
)
async def container_without_settings(stage: Stage) -> AsyncGenerator[None]:
    """Move the file with the shop's settings away and restart one replica, which then ends by itself again and again."""
    client = _client(stage)
    mounts = (await client.inspect())["Mounts"]
    directory = next((Path(mount["Source"]) for mount in mounts if mount["Destination"] == SETTINGS), None)
    files = sorted(directory.iterdir()) if directory is not None else []
    if not files:
        raise InjectionFailedError(f"{client.name}: nothing is mounted at {SETTINGS} that could be missing")
    moved = {path: path.with_name(f".{path.name}.previous") for path in files}
    try:
        for path, aside in moved.items():
            path.rename(aside)
        await client.runtime.restart()
        yield
    finally:
        for path, aside in moved.items():
            if aside.exists():
                aside.rename(path)
        await client.engine.call(client.name, lambda engine: engine.api.restart(client.name, timeout=5), sent=True)


@scenario(
    title="A container runs out of memory",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"oom_killed", "memory_high", "container_down"},
    runtimes=IN_CONTAINERS,
    catalogue=(3,),
)
async def container_out_of_memory(stage: Stage) -> AsyncGenerator[None]:
    """Lower a replica's memory limit to little more than it uses, and let a report in it need more."""
    client = _client(stage)
    before = await client.inspect()
    limit = memory_limit_mib(before)
    used = (await stage.observe()).reading.values.get("memory_mib")
    if limit is None or not isinstance(used, int | float):
        raise InjectionFailedError(f"{client.name}: memory_limit_mib {limit} and memory_mib {used} have to be known")
    lowered = int(used + ROOM_MIB) * MIB
    try:
        await client.engine.update(before["Id"], {"Memory": lowered, "MemorySwap": lowered})
        await _run(client, "python3", "-c", f"rows = bytearray({REPORT_MIB} << 20); print(len(rows))")
        yield
        now = memory_limit_mib(await client.inspect())
        if now is None or now <= lowered / MIB:
            raise Unhealed(f"the memory limit is {now} MiB, which is no more than before")
    finally:
        await client.engine.update(before["Id"], {"Memory": int(limit * MIB), "MemorySwap": int(limit * MIB)})
        await _ensure_running(client)


@scenario(
    title="A container is starved of CPU",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"cpu_throttled", "cpu_high"},
    forbidden_tools={"docker_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(4,),
)
async def container_starved(stage: Stage) -> AsyncGenerator[None]:
    """Lower a replica's CPU limit to a twentieth of a core while it computes a report."""
    client = _client(stage)
    before = await client.inspect()
    limit = cpu_limit(before)
    if limit is None:
        raise InjectionFailedError(f"{client.name}: has no CPU limit that could be lowered")
    report = f"timeout {WORK_SECONDS} sh -c 'while :; do sha256sum /usr/bin/python3 >/dev/null; sleep 0.15; done'"
    try:
        await _run(client, "sh", "-c", report, detach=True)
        await client.engine.update(before["Id"], {"NanoCpus": int(STARVED_CPUS * 1e9)})
        yield
    finally:
        await client.engine.update(before["Id"], {"NanoCpus": int(limit * 1e9)})
        await _run(client, "pkill", "-f", "sha256sum /usr/bin/python3")


@scenario(
    title="A container is frozen",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"paused"},
    forbidden_tools={"docker_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(5,),
)
async def container_frozen(stage: Stage) -> AsyncGenerator[None]:
    """Pause a container: its processes stand still, and its health check too."""
    client = _client(stage)
    started = (await client.inspect())["State"]["StartedAt"]
    try:
        await client.engine.call(client.name, lambda engine: engine.api.pause(client.name), sent=True)
        yield
        if (await client.inspect())["State"]["StartedAt"] != started:
            raise Unhealed(f"{client.name} was started anew, which ended what it was doing")
    finally:
        await _ensure_running(client)


@scenario(
    title="A container is cut off from its network",
    resource_kind=Kind.CONTAINER,
    target=REPLICA,
    symptoms={"network_detached"},
    forbidden_tools={"docker_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(6,),
)
async def container_cut_off(stage: Stage) -> AsyncGenerator[None]:
    """Take a container out of its network."""
    client = _client(stage)
    ((network, attached),) = (await client.inspect())["NetworkSettings"]["Networks"].items()
    names = [name for name in attached["Aliases"] or () if not client.name.startswith(name)]
    try:
        await client.engine.call(client.name, lambda engine: engine.api.disconnect_container_from_network(client.name, network), sent=True)
        yield
        back = (await client.inspect())["NetworkSettings"]["Networks"].get(network, {}).get("Aliases") or []
        if not set(names) <= set(back):
            raise Unhealed(f"{client.name} is in {network} again under the names {back}, and was under {names}")
    finally:
        if network not in (await client.inspect())["NetworkSettings"]["Networks"]:
            await client.engine.call(
                client.name, lambda engine: engine.api.connect_container_to_network(client.name, network, aliases=names), sent=True
            )


@scenario(
    title="A container's health check is broken, the service is fine",
    resource_kind=Kind.CONTAINER,
    target="shop-app-container",
    symptoms={"unhealthy"},
    expects=Ending.ESCALATED,
    forbidden_tools={"docker_restart", "http_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(7,),
    ruled_out={Cause.STOPPED, Cause.FROZEN},
)
async def container_check_broken(stage: Stage) -> AsyncGenerator[None]:
    """Take away the program that the health check runs; the shop goes on serving."""
    client = _client(stage)
    try:
        if await _run(client, "mv", "/usr/bin/curl", "/usr/bin/curl.dpkg-old") != 0:
            raise InjectionFailedError(f"{client.name}: has no curl, which its health check is expected to run")
        yield
    finally:
        await _run(client, "mv", "/usr/bin/curl.dpkg-old", "/usr/bin/curl")


@scenario(
    title="Another program has a container's port",
    resource_kind=Kind.CONTAINER,
    target="shop-web-container",
    symptoms={"port_conflict"},
    expects=Ending.ESCALATED,
    runtimes=IN_CONTAINERS,
    catalogue=(8,),
)
async def container_port_taken(stage: Stage) -> AsyncGenerator[None]:
    """Stop a container, listen on its port of the host, and have the engine start it again."""
    client = _client(stage)
    bindings = [one for many in (await client.inspect())["HostConfig"]["PortBindings"].values() for one in many]
    if not bindings:
        raise InjectionFailedError(f"{client.name}: publishes no port that could be taken")
    await client.runtime.stop()
    server = await _listen(bindings[0]["HostIp"], int(bindings[0]["HostPort"]))
    try:
        # That it can't be started is what this is about; the runner sees to it that the symptom shows.
        await client.engine.call(client.name, _try_to_start(client.name), sent=True)
        yield
    finally:
        server.close()
        await server.wait_closed()
        await _ensure_running(client)


@scenario(
    title="A container is stopped by whoever maintains it",
    resource_kind=Kind.CONTAINER,
    target="shop-reports-container",
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools={"docker_start", "docker_restart"},
    runtimes=IN_CONTAINERS,
    catalogue=(43,),
)
async def container_in_maintenance(stage: Stage) -> AsyncGenerator[None]:
    """Stop a container whose label says that it is being maintained."""
    client = _client(stage)
    await client.runtime.stop()
    try:
        yield
    finally:
        await _ensure_running(client)


async def _listen(host: str, port: int) -> asyncio.Server:
    """A server there once the container's port is free."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with asyncio.timeout(PORT_SECONDS):
        while True:
            try:
                return await asyncio.start_server(hang_up, host, port)
            except OSError:
                await asyncio.sleep(0.1)


def _try_to_start(container: str) -> Any:

    def start(engine: Any) -> str:
        from docker.errors import APIError  # the SDK is loaded where containers are, not with the catalogue

        try:
            engine.api.start(container)
        except APIError as error:
            return str(error.explanation)
        raise InjectionFailedError(f"{container}: was started although its port is taken")

    return start
