"""Tools for what a container may use, and how many of its kind there are."""

from typing import Self

from pydantic import Field, JsonValue, model_validator

from blocks.schema import Kind, Resource, Risk
from tasks.clients.compose_cli import scale
from tasks.clients.container_facts import MIB, Inspected, compose_service, cpu_limit, labels, memory_limit_mib
from tasks.clients.containers import ContainerClient
from tasks.clients.polling import poll
from tasks.core.declare import Growth, ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change

SCALE_SECONDS = 20.0


class UpdateLimits(ToolArgs):
    """New limits; one of them, or both."""

    memory_mib: float | None = Field(None, ge=6, le=1_048_576, description="New memory limit in MiB; null leaves it.")
    cpus: float | None = Field(None, ge=0.01, le=1024, description="New CPU limit in cores; null leaves it.")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.memory_mib is None and self.cpus is None:
            raise ValueError("memory_mib, cpus: give one of them")
        return self


class Scale(ToolArgs):
    """How many."""

    replicas: int = Field(ge=1, le=100, description="Containers of the same compose service that shall run.")


@tool(
    service=Kind.CONTAINER,
    risk=Risk.REVERSIBLE,
    undo="docker_update_limits",
    title="Change memory and CPU limits",
    timeout_seconds=40,
    symptoms={"oom_killed", "memory_high", "cpu_throttled", "cpu_high"},
    growth=(
        Growth(argument="memory_mib", measured="memory_limit_mib", limit="memory_mib", share="memory_percent"),
        Growth(argument="cpus", measured="cpus_limit", limit="cpus", share="cpu_percent"),
    ),
)
async def docker_update_limits(client: ContainerClient, args: UpdateLimits) -> Change:
    """Change the memory or CPU limit while it runs; never above limits.memory_mib and limits.cpus.

    The swap that it may use stays what it is. NotApplicable also where there is no such limit: whether to introduce one is a person's
    decision. ToolFailed: the engine refuses, as where more memory is in use than the new limit allows.
    """
    before = await client.inspect()
    _refuse_beyond(client.resource, args)
    changes = {**_memory_change(client.name, before, args.memory_mib), **_cpu_change(client.name, before, args.cpus)}
    await client.engine.update(before["Id"], changes)
    after = await client.inspect()
    for asked, found, what in (
        (args.memory_mib, memory_limit_mib(after), "memory limit"),
        (args.cpus, cpu_limit(after), "CPU limit"),
    ):
        if asked is not None and (found is None or abs(found - asked) > 0.01):
            raise ToolFailed(f"{client.name}: its {what} reads back as {found}, not {asked:g}")
    undo: dict[str, JsonValue] = {
        "memory_mib": None if args.memory_mib is None else memory_limit_mib(before),
        "cpus": None if args.cpus is None else cpu_limit(before),
    }
    return Change(before=_limits(before), after=_limits(after), undo=undo)


@tool(
    service=Kind.CONTAINER,
    risk=Risk.REVERSIBLE,
    undo="docker_scale",
    title="Change the number of replicas",
    timeout_seconds=100,
    symptoms={"cpu_high", "cpu_throttled"},
    growth=Growth(argument="replicas", measured="replicas", limit="replicas", share="cpu_percent"),
)
async def docker_scale(client: ContainerClient, args: Scale) -> Change:
    """Run so many containers of its compose service, from compose's own files.

    Those that run are left alone; fewer are reached by removing the newest. NotApplicable: compose did not make it, its files are not
    here or describe something else than what runs, or there are to be more than limits.replicas. ToolFailed: compose failed.
    """
    most = client.resource.limits.replicas
    if most is not None and args.replicas > most:
        raise NotApplicable(f"{client.name}: {args.replicas} replicas are more than limits.replicas, which is {most}")
    inspected = await client.inspect()
    before = await _replicas(client, inspected)
    if before == args.replicas:
        return Change(before={"replicas": before}, after={"replicas": before})
    await scale(client.engine.url, client.name, inspected, args.replicas)

    async def reached() -> int | None:
        found = await _replicas(client, inspected)
        return found if found == args.replicas else None

    if await poll(reached, seconds=SCALE_SECONDS, every_seconds=0.1) is None:
        raise ToolFailed(f"{client.name}: {await _replicas(client, inspected)} replicas run, not {args.replicas}")
    return Change(before={"replicas": before}, after={"replicas": args.replicas}, undo={"replicas": before} if before else None)


def _refuse_beyond(resource: Resource, args: UpdateLimits) -> None:
    limits = resource.limits
    if args.memory_mib is not None and limits.memory_mib is not None and args.memory_mib > limits.memory_mib:
        raise NotApplicable(f"{resource.name}: {args.memory_mib:g} MiB is above limits.memory_mib, which is {limits.memory_mib}")
    if args.cpus is not None and limits.cpus is not None and args.cpus > limits.cpus:
        raise NotApplicable(f"{resource.name}: {args.cpus:g} cores is above limits.cpus, which is {limits.cpus:g}")


def _memory_change(name: str, inspected: Inspected, wanted: float | None) -> dict[str, int]:
    if wanted is None:
        return {}
    host = inspected["HostConfig"]
    limit, with_swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
    if not limit:
        raise NotApplicable(f"{name}: the container has no memory limit, so there is none to change")
    memory = round(wanted * MIB)
    # The engine refuses a limit above that of memory and swap together; -1 is no limit, 0 that it knows none.
    return {"Memory": memory, "MemorySwap": memory + with_swap - limit} if with_swap > 0 else {"Memory": memory}


def _cpu_change(name: str, inspected: Inspected, wanted: float | None) -> dict[str, int]:
    if wanted is None:
        return {}
    if cpu_limit(inspected) is None:
        raise NotApplicable(f"{name}: the container has no CPU limit, so there is none to change")
    if inspected["HostConfig"].get("NanoCpus"):
        return {"NanoCpus": round(wanted * 1e9)}
    period = inspected["HostConfig"].get("CpuPeriod") or 100_000
    return {"CpuPeriod": period, "CpuQuota": round(wanted * period)}


async def _replicas(client: ContainerClient, inspected: Inspected) -> int:
    owner = compose_service(labels(inspected))
    if owner is None:
        raise NotApplicable(f"{client.name}: compose did not make this container, so it has no replicas")
    wanted = [f"com.docker.compose.project={owner.project}", f"com.docker.compose.service={owner.service}"]
    return await client.engine.call(client.name, lambda engine: len(engine.containers.list(filters={"label": wanted})), sent=False)


def _limits(inspected: Inspected) -> dict[str, JsonValue]:
    swap = inspected["HostConfig"].get("MemorySwap") or 0
    return {
        "memory_limit_mib": memory_limit_mib(inspected),
        "memory_and_swap_mib": round(swap / MIB, 2) if swap > 0 else None,
        "cpus_limit": cpu_limit(inspected),
    }
