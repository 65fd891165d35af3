"""A ready client for one virtual machine: Google's API for what it is, SSH for what is inside."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from blocks.kinds import Kind
from blocks.schema import Resource
from tasks.clients.google_access import GoogleCloud
from tasks.clients.google_operations import read_compute_operations
from tasks.clients.google_snapshots import CloudInstance
from tasks.core.compute_inside import CpuTicks, Inside, NotUnderstood, cpu_percent, script, understood
from tasks.core.errors import NotApplicable, ToolFailed

if TYPE_CHECKING:
    from google.cloud import compute_v1

    from tasks.clients.ssh import Ssh

MAINTENANCE_LABEL = "evenkeel-maintenance"
SAMPLE_SECONDS = 1.0
OLDEST_SAMPLE_SECONDS = 5.0
SUSTAINED_SECONDS = 10.0
OLDEST_SUSTAINED_SECONDS = 120.0
RUN_SECONDS = 3.0
GREETING_SECONDS = 1.0
HOST_ENDED = "compute.instances."
"""So begins the type of an operation that nobody asked for, such as compute.instances.guestTerminate."""
REMEMBERED_SECONDS = 7 * 86400.0
"""For so long Google is sure to know who stopped a machine."""
Greeting = Literal["answers", "hangs", "closed"]


@dataclass(frozen=True)
class Ended:
    """Why a machine is off."""

    stopped_by: str | None = None
    """Whoever asked for it; None: nobody did."""
    ended_by: str | None = None
    """What else ended it, such as guestTerminate or hostError, where Google says."""


@dataclass(frozen=True)
class CpuUse:
    """Shares of the processors in percent."""

    now: float | None
    sustained: float | None
    """Over the last ten seconds or more; None until so much was seen of this boot."""


@dataclass
class ComputeClient:
    """One machine. Its SSH connection is shared with whatever else is reached through the machine, and closed by whoever opened it."""

    resource: Resource
    cloud: GoogleCloud
    ssh: "Ssh | None" = None
    _samples: deque[tuple[float, CpuTicks]] = field(default_factory=lambda: deque(maxlen=64), init=False, repr=False)
    _ended: Ended | None = field(default=None, init=False, repr=False)

    async def listed(self) -> CloudInstance | None:
        """The instance as of the last second, with all others by one call; None where there is none of this name."""
        return (await self.cloud.snapshot(Kind.COMPUTE_ENGINE)).find(self.resource)

    async def zone(self) -> str:
        """Where it is: as declared, else as found."""
        if self.resource.cloud.location is not None:
            return self.resource.cloud.location
        found = await self.listed()
        if found is None:
            raise NotApplicable(
                f"{self.resource.name}: project {self.cloud.project} has no instance {self.resource.address}; correct address"
            )
        return found.location

    async def instance(self) -> "compute_v1.Instance":
        """The instance now, asked for alone; ToolFailed where there is none."""
        zone = await self.zone()

        def get(timeout: float) -> Any:
            from google.cloud import compute_v1

            request = compute_v1.GetInstanceRequest(project=self.cloud.project, zone=zone, instance=self.resource.address)
            return self.cloud.instances.get(request, timeout=timeout, retry=None)

        found: compute_v1.Instance = await self.cloud.call(f"instance {self.resource.address}", get)
        return found

    async def ended(self, found: CloudInstance) -> Ended:
        """Why the machine is off, from the operations on it. Asked once while it is off."""
        if self._ended is None:
            operations = await self.cloud.call(
                f"operations of {self.resource.address}",
                lambda timeout: read_compute_operations(self.cloud, found.location, found.raw.id, timeout),
            )
            self._ended = _why_off(found.raw, operations)
        return self._ended

    def is_up(self) -> None:
        """Forget why it was off."""
        self._ended = None

    async def inside(self) -> tuple[Inside, CpuUse]:
        """What the machine tells of itself, and how much of its processors is in use: of the last seconds where they were measured
        lately, else of the one second that this takes.

        Unreachable, OutcomeUnknown, ToolFailed, ProbeBroken: there is no answer over SSH. NotApplicable: no SSH is declared.
        """
        recent = self._sample(SAMPLE_SECONDS * 0.9, OLDEST_SAMPLE_SECONDS)
        found = await self.told(0 if recent is not None else SAMPLE_SECONDS)
        now = cpu_percent(recent or found.ticks[0], found.ticks[-1])
        if now is None and recent is not None:  # it was booted in between
            found = await self.told(SAMPLE_SECONDS)
            now = cpu_percent(found.ticks[0], found.ticks[-1])
        base = self._sample(SUSTAINED_SECONDS, OLDEST_SUSTAINED_SECONDS)
        self._samples.append((time.monotonic(), found.ticks[-1]))
        return found, CpuUse(now, None if base is None else cpu_percent(base, found.ticks[-1]))

    def _sample(self, youngest_seconds: float, oldest_seconds: float) -> CpuTicks | None:
        """The latest sample that is so old."""
        now = time.monotonic()
        return next((ticks for at, ticks in reversed(self._samples) if youngest_seconds <= now - at <= oldest_seconds), None)

    async def told(self, sample_seconds: float = 0) -> Inside:
        """One run of the script."""
        if self.ssh is None:
            raise NotApplicable(f"{self.resource.name}: the inventory names no cloud.ssh, so nothing inside can be reached; add it")
        try:
            return understood(await self.ssh.run(script(sample_seconds), seconds=RUN_SECONDS + sample_seconds))
        except NotUnderstood as error:
            raise ToolFailed(f"{self.resource.name}: {error}") from error

    async def address(self) -> str:
        """Where its SSH server is: as declared, else its external address, else the internal one."""
        declared = self.resource.cloud.ssh
        if declared is not None and declared.host is not None:
            return declared.host
        found = await self.listed()
        if found is None:
            raise NotApplicable(f"{self.resource.name}: there is no instance {self.resource.address}")
        return address_of(found.raw)

    async def greeting(self) -> Greeting:
        """Whether a new connection to its SSH server is greeted: what hangs takes connections and says nothing.

        Where gcloud goes through IAP nothing can be tried from here: closed.
        """
        declared = self.resource.cloud.ssh
        if declared is None or declared.by == "gcloud":
            return "closed"
        return await greeting(await self.address(), declared.port)

    async def close(self) -> None:
        """There is nothing of its own to close."""


async def greeting(host: str, port: int) -> Greeting:
    """Whether an SSH server greets a new connection."""
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return "closed"
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            return "answers" if await reader.read(4) == b"SSH-" else "closed"
    except TimeoutError:
        return "hangs"
    except OSError:
        return "closed"
    finally:
        writer.close()


def address_of(raw: "compute_v1.Instance") -> str:
    """The external address of an instance, else the internal one."""
    external = [config.nat_i_p for interface in raw.network_interfaces for config in interface.access_configs if config.nat_i_p]
    internal = [interface.network_i_p for interface in raw.network_interfaces if interface.network_i_p]
    found = [*external, *internal]
    if not found:
        raise NotApplicable(f"{raw.name}: the instance has no address")
    return str(found[0])


def maintenance_of(labels: Any) -> str | None:
    """What the label of maintenance says, None without one."""
    return (labels[MAINTENANCE_LABEL] or "yes") if MAINTENANCE_LABEL in labels else None


def _why_off(raw: "compute_v1.Instance", operations: list[Any]) -> Ended:
    for one in operations:
        failed = bool(one.error.errors)
        if one.operation_type in {"stop", "suspend"} and not failed:
            return Ended(stopped_by=one.user or "somebody")
        if one.operation_type.startswith(HOST_ENDED):
            return Ended(ended_by=one.operation_type.removeprefix(HOST_ENDED))
        if one.operation_type in {"start", "reset", "insert", "resume"} and not failed:
            return Ended()
    stopped_at = seconds_of(raw.last_stop_timestamp)
    if stopped_at is not None and time.time() - stopped_at > REMEMBERED_SECONDS:
        return Ended(stopped_by=f"somebody before {raw.last_stop_timestamp[:10]}, longer ago than Google remembers")
    return Ended()


def seconds_of(timestamp: str) -> float | None:
    """Seconds since the epoch of Google's text for a time, None where it is empty."""
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None
