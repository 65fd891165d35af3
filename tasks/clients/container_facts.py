"""How what the engine tells of a container is read. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Inspected = dict[str, Any]
"""A container's inspection: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerInspect"""
MIB = 1024 * 1024
COMPOSE = "com.docker.compose."
MAINTENANCE_LABEL = "evenkeel.maintenance"
GRACE_SECONDS = 10
NO_NETWORKS = ("host", "none", "container:")


def epoch_seconds(text: str) -> float | None:
    """A time as the engine writes it, in UTC with nanoseconds; None for its year 1, which stands for never."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    at = datetime.fromisoformat(f"{whole}+00:00")
    return None if at.year == 1 else at.timestamp() + float(f"0.{fraction or 0}")


def grace_seconds(inspected: Inspected) -> int:
    """How long the container has to end by itself before it is killed."""
    return int(inspected["Config"].get("StopTimeout") or GRACE_SECONDS)


def labels(inspected: Inspected) -> dict[str, str]:
    """Its labels."""
    return dict(inspected["Config"].get("Labels") or {})


def memory_limit_mib(inspected: Inspected) -> float | None:
    """Its memory limit; None where it has none."""
    limit = inspected["HostConfig"].get("Memory") or 0
    return round(limit / MIB, 2) if limit else None


def cpu_limit(inspected: Inspected) -> float | None:
    """Its CPU limit in cores; None where it has none."""
    host = inspected["HostConfig"]
    if host.get("NanoCpus"):
        return float(host["NanoCpus"] / 1e9)
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or 100_000
    return float(quota / period) if quota > 0 else None


def networks(inspected: Inspected) -> dict[str, list[str]]:
    """The networks that it is in, and its names there beside its own."""
    found = inspected["NetworkSettings"].get("Networks") or {}
    return {name: aliases(inspected, (settings or {}).get("Aliases")) for name, settings in found.items()}


def aliases(inspected: Inspected, told: list[str] | None) -> list[str]:
    """Names without the short id, which the engine adds by itself."""
    return [alias for alias in told or () if not inspected["Id"].startswith(alias)]


def created_in(inspected: Inspected) -> str | None:
    """The network that it was created for; None where it is to have none of its own."""
    mode = str(inspected["HostConfig"].get("NetworkMode") or "default")
    if mode.startswith(NO_NETWORKS):
        return None
    return "bridge" if mode == "default" else mode


def ports(inspected: Inspected) -> list[int]:
    """The TCP ports that it is declared to listen on, by its image or as published."""
    declared = {*(inspected["Config"].get("ExposedPorts") or {}), *(inspected["HostConfig"].get("PortBindings") or {})}
    return sorted(int(port.removesuffix("/tcp")) for port in declared if port.endswith("/tcp"))


def port_addresses(inspected: Inspected) -> list[tuple[str, int]]:
    """Where its TCP ports are reached from this machine: as published, else at its own address."""
    settings = inspected["NetworkSettings"]
    own = [one["IPAddress"] for one in (settings.get("Networks") or {}).values() if one and one.get("IPAddress")]
    found: list[tuple[str, int]] = []
    for port in ports(inspected):
        published = (settings.get("Ports") or {}).get(f"{port}/tcp") or ()
        found += [(_reachable(one["HostIp"]), int(one["HostPort"])) for one in published] or [(address, port) for address in own[:1]]
    return found


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in {"", "0.0.0.0"} else "::1" if host == "::" else host  # noqa: S104 - what the engine writes


@dataclass(frozen=True)
class ComposeService:
    """The service of a compose project that a container belongs to."""

    project: str
    service: str
    directory: str
    files: tuple[str, ...]
    environment_files: tuple[str, ...]


def compose_service(labelled: Mapping[str, str]) -> ComposeService | None:
    """What compose writes into its containers' labels; None where it did not make this one."""
    project, service = labelled.get(f"{COMPOSE}project"), labelled.get(f"{COMPOSE}service")
    if not project or not service:
        return None
    return ComposeService(
        project=project,
        service=service,
        directory=labelled.get(f"{COMPOSE}project.working_dir", ""),
        files=_paths(labelled.get(f"{COMPOSE}project.config_files")),
        environment_files=_paths(labelled.get(f"{COMPOSE}project.environment_file")),
    )


def _paths(joined: str | None) -> tuple[str, ...]:
    return tuple(path for path in (joined or "").split(",") if path)
