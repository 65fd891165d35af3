"""How a service is started, stopped and signalled, whatever runs it. Tools that restart a server receive one."""

from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable


@dataclass(frozen=True)
class ServiceStatus:
    """State of a service as its runtime sees it."""

    state: str
    """running, stopped or exited."""
    pid: int | None
    started_at: float | None
    """Epoch seconds of the current start."""


class Runtime(Protocol):
    """What runs a service. Every call has a deadline."""

    async def status(self) -> ServiceStatus:
        """State of the service."""

    async def start(self) -> ServiceStatus:
        """Start the service; NotApplicable when it runs."""

    async def stop(self) -> ServiceStatus:
        """Stop the service in its own gentle way, by force after a grace period; NotApplicable when it is stopped."""

    async def restart(self) -> ServiceStatus:
        """Stop the service if it runs, and start it."""

    async def signal(self, name: str) -> ServiceStatus:
        """Send a signal such as SIGHUP to the service's main process; NotApplicable when it is stopped."""

    async def log(self, lines: int) -> list[str]:
        """The last lines of the service's log."""


class SupervisedProcess:
    """A service under the lab's supervisor, reached by HTTP over the supervisor's unix socket."""

    def __init__(self, control: str, service: str, timeout_seconds: float = 15) -> None:
        self._control = control
        self._service = service
        self._timeout_seconds = timeout_seconds

    async def _call(self, method: str, path: str, **query: str) -> Any:
        # Without TLS settings: reading the certificates costs 50 ms, and a unix socket needs none.
        transport = httpx.AsyncHTTPTransport(uds=self._control, verify=False, trust_env=False)
        url = f"http://supervisor/services/{self._service}{path}"
        try:
            async with httpx.AsyncClient(transport=transport, timeout=self._timeout_seconds, trust_env=False) as client:
                response = await client.request(method, url, params=query)
        except httpx.ConnectError as error:
            raise Unreachable(f"runtime of {self._service}: no supervisor answers at its control socket") from error
        except httpx.TransportError as error:
            raise OutcomeUnknown(f"runtime of {self._service}: {method} {path} got no reply ({type(error).__name__})") from error
        if response.status_code == httpx.codes.CONFLICT:
            raise NotApplicable(f"runtime of {self._service}: {response.json()['error']}")
        if response.is_error:
            raise ToolFailed(f"runtime of {self._service}: {response.text[:300]}")
        return response.json()

    async def _status(self, method: str, path: str, **query: str) -> ServiceStatus:
        answer = await self._call(method, path, **query)
        return ServiceStatus(state=answer["state"], pid=answer["pid"], started_at=answer["started_at"])

    async def status(self) -> ServiceStatus:
        """State of the service."""
        return await self._status("GET", "")

    async def start(self) -> ServiceStatus:
        """Start the service; NotApplicable when it runs."""
        return await self._status("POST", "/start")

    async def stop(self) -> ServiceStatus:
        """Stop the service; NotApplicable when it is stopped."""
        return await self._status("POST", "/stop")

    async def restart(self) -> ServiceStatus:
        """Stop the service if it runs, and start it."""
        return await self._status("POST", "/restart")

    async def signal(self, name: str) -> ServiceStatus:
        """Send a signal to the service's main process."""
        return await self._status("POST", "/signal", signal=name)

    async def log(self, lines: int) -> list[str]:
        """The last lines of the service's log."""
        answer = await self._call("GET", "/log", lines=str(lines))
        return list(answer["lines"])


def require_runtime(runtime: Runtime | None, resource: str) -> Runtime:
    """The runtime; NotApplicable names the remedy where the inventory gives none."""
    if runtime is None:
        raise NotApplicable(f"{resource}: the inventory names no runtime; add `runtime:` to let it be restarted")
    return runtime
