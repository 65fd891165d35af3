"""The fault knobs: what goes wrong, for which method, instance and identity, and how often."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from compose.description import Model
from compose.google_cloud.refusals import Refused

MESSAGES = {
    403: "Access denied by the fault.",
    404: "Not found, says the fault.",
    429: "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.",
    500: "Internal error encountered.",
    503: "The service is currently unavailable.",
}


class Quota(Model):
    """So many calls in so many seconds; more are answered 429 with Retry-After."""

    calls: int = Field(ge=0)
    seconds: float = Field(gt=0)


class Fault(Model):
    """One thing that goes wrong. Everything that is named must fit: method, instance, identity; what is left out fits all."""

    method: str = Field("*", description="Method id, such as compute.instances.start, or a pattern: redis.*, oauth2.token, monitoring.*.")
    target: str = Field("*", description="The instance's name, or a pattern.")
    identity: str = Field("*", description="The identity's short name, or a pattern.")
    times: int | None = Field(None, ge=1, description="How often; none: until it is taken away.")
    skip: int = Field(0, ge=0, description="So many calls pass before it begins.")

    status: int | None = Field(None, ge=400, le=599, description="The request is refused with this HTTP status.")
    reason: str | None = Field(None, description="The refusal's reason; none: the usual one.")
    message: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, description="The refusal's headers, such as Retry-After.")
    deny: str | None = Field(None, description="Without this permission (or pattern) for the while: the API's own 403.")
    quota: Quota | None = None
    hang_seconds: float | None = Field(None, ge=0, description="The request is answered only after this time.")
    cut: bool = Field(False, description="The line is cut: no answer.")
    takes_effect: bool = Field(False, description="Refusal, hanging and cutting come after the request took effect: its answer is lost.")

    operation_seconds: float | None = Field(None, ge=0, le=3600, description="The operation that it begins takes so long, and is well.")
    operation: Literal["error", "stuck"] | None = Field(None, description="The operation that it begins fails, or never ends.")
    operation_code: str = "INTERNAL_ERROR"
    operation_message: str = "An internal error occurred."
    operation_status: int = Field(500, description="The HTTP status within a failed operation of Compute Engine.")

    unreachable: tuple[str, ...] = Field((), description="Zones or regions of which lists know nothing.")
    metric_gap_seconds: float | None = Field(None, ge=0, description="Points of the newest so many seconds are lost.")


@dataclass
class Armed:
    """A fault that was set, and how often it came true."""

    id: int
    fault: Fault
    passed: int = 0
    used: int = 0
    calls: deque[float] = field(default_factory=deque)

    def fits(self, method: str, target: str, identity: str) -> bool:
        """Whether this call is one that it is meant for."""
        fault = self.fault
        return (
            (fault.times is None or self.used < fault.times)
            and fnmatchcase(method, fault.method)
            and fnmatchcase(target, fault.target)
            and fnmatchcase(identity, fault.identity)
        )


class Faults:
    """All faults that are set."""

    def __init__(self) -> None:
        self._armed: dict[int, Armed] = {}
        self._last = 0

    def add(self, fault: Fault) -> int:
        """Set it; its number."""
        self._last += 1
        self._armed[self._last] = Armed(self._last, fault)
        return self._last

    def remove(self, number: int) -> None:
        """Take one away; KeyError where there is none such."""
        del self._armed[number]

    def clear(self) -> None:
        """Take all away."""
        self._armed.clear()

    def shown(self) -> list[dict[str, object]]:
        """As JSON."""
        return [{"id": one.id, "used": one.used, **one.fault.model_dump(exclude_defaults=True)} for one in self._armed.values()]

    def meeting(self, method: str, target: str, identity: str) -> list[Fault]:
        """What goes wrong with this call; each counts as used by it. A quota that is not exhausted goes unnoticed."""
        return list(self._meeting(method, target, identity))

    def _meeting(self, method: str, target: str, identity: str) -> Iterator[Fault]:
        for armed in self._armed.values():
            if not armed.fits(method, target, identity):
                continue
            if armed.passed < armed.fault.skip:
                armed.passed += 1
                continue
            if armed.fault.quota is not None:
                refusal = _over_quota(armed, armed.fault.quota)
                if refusal is not None:
                    armed.used += 1
                    yield refusal
                continue
            armed.used += 1
            yield armed.fault


def _over_quota(armed: Armed, quota: Quota) -> Fault | None:
    now = time.monotonic()
    while armed.calls and armed.calls[0] <= now - quota.seconds:
        armed.calls.popleft()
    if len(armed.calls) < quota.calls:
        armed.calls.append(now)
        return None
    wait = quota.seconds - (now - armed.calls[0]) if armed.calls else quota.seconds
    return Fault(status=429, reason="rateLimitExceeded", headers={"Retry-After": str(max(1, round(wait + 0.5)))})


class LineCut(Exception):
    """The connection is to end without an answer."""


async def suffer(fault: Fault) -> None:
    """Hang, then LineCut or Refused, as the fault has it."""
    if fault.hang_seconds is not None:
        await asyncio.sleep(fault.hang_seconds)
    if fault.cut:
        raise LineCut
    if fault.status is not None:
        message = fault.message or MESSAGES.get(fault.status, "The fault's error.")
        details = None if fault.reason is None else dict[str, str]()
        raise Refused(fault.status, message, reason=fault.reason, headers=fault.headers, details=details)


def forbids(faults: Iterable[Fault], permission: str) -> bool:
    """Whether one of them takes this permission away."""
    return any(fault.deny is not None and fnmatchcase(permission, fault.deny) for fault in faults)
