"""Tools that only read a container: its log, its figures, how it was made."""

import time
from typing import Any, Literal

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.container_facts import (
    Inspected,
    compose_service,
    cpu_limit,
    created_in,
    labels,
    memory_limit_mib,
    networks,
    port_addresses,
)
from tasks.clients.container_samples import usage
from tasks.clients.containers import ContainerClient
from tasks.core.declare import NoArgs, ToolArgs, measured, tool
from tasks.core.log_templates import count_templates
from tasks.core.models import Change
from tasks.core.redaction import Redactor

Level = Literal["any", "warning", "error", "critical"]
LEVELS: dict[Level, set[str]] = {
    "warning": {"WARNING", "warn", "ERROR", "error", "CRITICAL", "FATAL", "PANIC", "crit", "alert", "emerg"},
    "error": {"ERROR", "error", "CRITICAL", "FATAL", "PANIC", "crit", "alert", "emerg"},
    "critical": {"CRITICAL", "FATAL", "PANIC", "crit", "alert", "emerg"},
}
LONGEST_LINE = 300


class ReadLogs(ToolArgs):
    """Which part of the log."""

    lines: int = Field(200, ge=1, le=2000, description="How many of the last lines are read.")
    level: Level = Field("warning", description="The least level, counted by template; any: the lines themselves, 50 at most.")
    minutes: int = Field(60, ge=1, le=1440, description="How far back.")


@tool(
    service=Kind.CONTAINER,
    risk=Risk.READ_ONLY,
    title="Read the log",
    timeout_seconds=25,
    fits=measured("container_down", "crash_looping", "unhealthy"),
)
async def docker_logs(client: ContainerClient, args: ReadLogs) -> Change:
    """Read its log: lines of a level and above, as templates with their counts, or the lines themselves."""
    since = int(time.time()) - 60 * args.minutes

    def read(engine: Any) -> bytes:
        return bytes(engine.api.logs(client.name, tail=args.lines, since=since))

    lines = (await client.engine.call(client.name, read, sent=False)).decode(errors="replace").splitlines()
    values: dict[str, JsonValue] = {"lines_read": len(lines), "minutes": args.minutes}
    if args.level == "any":
        last: list[JsonValue] = [line[:LONGEST_LINE] for line in lines[-50:]]
        values["last_lines"] = last
    else:
        counted: list[JsonValue] = [line for line in count_templates(lines) if line.split(maxsplit=2)[1] in LEVELS[args.level]]
        values["counted"] = counted
    return Change(before=values, after=values)


@tool(service=Kind.CONTAINER, risk=Risk.READ_ONLY, title="Read the figures", timeout_seconds=15)
async def docker_stats(client: ContainerClient, _args: NoArgs) -> Change:
    """Read memory, CPU, throttling, processes, restarts and kills of the container."""
    inspected = await client.inspect()
    watched = await client.watched(sampled=True)
    history = watched.history.within_an_hour(time.time())
    last = watched.samples.last
    codes: list[JsonValue] = [*history.exit_codes]
    values: dict[str, JsonValue] = {
        "state": inspected["State"]["Status"],
        **usage(watched.samples, memory_limit_mib(inspected), cpu_limit(inspected)),
        "processes": None if last is None else last.processes,
        "restart_count": inspected["RestartCount"],
        "oom_kills": history.oom_kills,
        "exit_codes": codes,
    }
    return Change(before=values, after=values)


@tool(service=Kind.CONTAINER, risk=Risk.READ_ONLY, title="Read how it was made", timeout_seconds=15)
async def docker_inspect(client: ContainerClient, _args: NoArgs) -> Change:
    """Read image, command, environment without secrets, limits, networks, mounts and health check."""
    values = Redactor().value(_made(await client.inspect()))
    return Change(before=values, after=values)


def _made(inspected: Inspected) -> dict[str, JsonValue]:
    config, host, state = inspected["Config"], inspected["HostConfig"], inspected["State"]
    owner = compose_service(labels(inspected))
    environment: dict[str, JsonValue] = {}
    for variable in config.get("Env") or ():
        name, _, value = variable.partition("=")
        environment[name] = value[:LONGEST_LINE]
    checks = (state.get("Health") or {}).get("Log") or ()
    reachable: list[JsonValue] = [f"{host}:{port}" for host, port in port_addresses(inspected)]
    mounts: list[JsonValue] = [
        f"{mount.get('Source') or mount.get('Name')} -> {mount['Destination']}{'' if mount['RW'] else ' (read-only)'}"
        for mount in inspected.get("Mounts") or ()
    ]
    in_networks: dict[str, JsonValue] = {}
    for name, aliases in networks(inspected).items():
        in_networks[name] = [*aliases]
    return {
        "image": config["Image"],
        "image_id": inspected["Image"],
        "created": inspected["Created"],
        "command": [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())],
        "user": config.get("User") or "root",
        "environment": environment,
        "state": state["Status"],
        "error": state["Error"] or None,
        "restart_policy": host["RestartPolicy"]["Name"] or "no",
        "health_check": (config.get("Healthcheck") or {}).get("Test"),
        "health_checks_said": [str(check.get("Output", "")).strip()[:LONGEST_LINE] for check in checks][-3:],
        "listens_on": reachable,
        "networks": in_networks,
        "created_in_network": created_in(inspected),
        "mounts": mounts,
        "memory_limit_mib": memory_limit_mib(inspected),
        "cpus_limit": cpu_limit(inspected),
        "compose": None if owner is None else f"{owner.project}/{owner.service}",
    }
