"""How a service is started, stopped and signalled, whatever runs it. Tools that restart a server receive one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import httpx

from blocks.runtimes import AnyRuntime, ContainerRuntime
from tasks.clients.container_engine import ContainerEngine
from tasks.clients.container_facts import Inspected, epoch_seconds, grace_seconds
from tasks.clients.container_streams import read_output
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

CHANGE_SECONDS = 30.0
CANNOT_START = {126, 127}


@dataclass(frozen=True)
class ServiceStatus:
    """State of a service as its runtime sees it."""

    state: str
    """running, stopped or exited; paused where a container is frozen."""
    pid: int | None
    """As this machine counts, where the service runs on it."""
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


@runtime_checkable
class Inside(Protocol):
    """A runtime whose service has files and processes of its own, such as a container."""

    async def run(self, command: Sequence[str], timeout_seconds: float = 5) -> tuple[int, str]:
        """Exit code, and stdout and stderr together, of a command that runs beside the service's processes.

        NotApplicable: the service is stopped. Unreachable: what runs it does not answer. ToolFailed: the command can't be started or
        did not end in time.
        """


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


class ContainerProcess:
    """A service in a container, reached through the engine's SDK."""

    def __init__(self, engine: ContainerEngine, container: str) -> None:
        self.engine = engine
        self.container = container

    async def status(self) -> ServiceStatus:
        """State of the container; NotApplicable when there is none of that name."""
        return _container_status(await self.engine.inspect(self.container))

    async def start(self) -> ServiceStatus:
        """Start the container, or let it go on when it is paused; NotApplicable when it runs."""
        state = (await self.status()).state
        if state == "running":
            raise NotApplicable(f"runtime of {self.container}: it runs already")
        if state == "paused":
            return await self._change(lambda container: container.unpause())
        return await self._change(lambda container: container.start())

    async def stop(self) -> ServiceStatus:
        """Stop the container by its own signal, by force after its grace period; NotApplicable when it does not run."""
        await self._require_running("stopped")
        return await self._change(lambda container: container.stop(timeout=grace_seconds(container.attrs)))

    async def restart(self) -> ServiceStatus:
        """Stop the container if it runs, and start it; NotApplicable when it is paused, for a restart would kill what is in it."""
        if (await self.status()).state == "paused":
            raise NotApplicable(f"runtime of {self.container}: it is paused; start it to let it go on")
        return await self._change(lambda container: container.restart(timeout=grace_seconds(container.attrs)))

    async def signal(self, name: str) -> ServiceStatus:
        """Send a signal to the container's main process; NotApplicable when it does not run."""
        await self._require_running("signalled")
        return await self._change(lambda container: container.kill(signal=name))

    async def log(self, lines: int) -> list[str]:
        """The last lines that the container wrote, of both its outputs."""

        def read(client: Any) -> bytes:
            return bytes(client.api.logs(self.container, tail=lines))

        return (await self.engine.call(self.container, read, sent=False)).decode(errors="replace").splitlines()

    async def run(self, command: Sequence[str], timeout_seconds: float = 5) -> tuple[int, str]:
        """Exit code, and stdout and stderr together, of a command that runs in the container.

        NotApplicable: the container does not run, or is paused. ToolFailed: the command can't be started, or did not end in time.
        """

        name = f"runtime of {self.container}"

        def create(client: Any) -> str:
            return str(client.api.exec_create(self.container, list(command))["Id"])

        created = await self.engine.call(self.container, create, sent=False)
        try:
            async with asyncio.timeout(timeout_seconds):
                output = await read_output(self.engine.url, created)
        except TimeoutError as error:
            raise ToolFailed(f"{name}: {command[0]} did not end within {timeout_seconds:g} s") from error
        except httpx.HTTPStatusError as error:
            await self._require_running("used")
            raise ToolFailed(f"{name}: {command[0]} can't be started: {error.response.text[:300]}") from error
        except httpx.HTTPError as error:
            raise Unreachable(f"{name}: the engine broke off ({type(error).__name__})") from error
        ended = await self.engine.call(self.container, lambda client: client.api.exec_inspect(created), sent=False)
        code = int(ended["ExitCode"])
        if code in CANNOT_START and output.startswith("OCI runtime exec failed"):
            raise ToolFailed(f"{name}: {command[0]} can't be started: {output.strip()[:300]}")
        return code, output

    async def _require_running(self, what: str) -> None:
        state = (await self.status()).state
        if state != "running":
            raise NotApplicable(f"runtime of {self.container}: it is {state}, so it can't be {what}")

    async def _change(self, action: Callable[[Any], object]) -> ServiceStatus:
        await self.engine.call(
            self.container, lambda client: action(client.containers.get(self.container)), sent=True, seconds=CHANGE_SECONDS
        )
        return await self.status()


def _container_status(inspected: Inspected) -> ServiceStatus:
    state = inspected["State"]
    match state["Status"]:
        case "running" | "paused" as name:
            return ServiceStatus(name, state["Pid"], epoch_seconds(state["StartedAt"]))
        case "created":
            return ServiceStatus("stopped", None, None)
        case _:
            return ServiceStatus("exited", None, epoch_seconds(state["StartedAt"]))


def open_runtime(runtime: AnyRuntime | None) -> Runtime | None:
    """What runs a resource, from its description in the inventory."""
    if runtime is None:
        return None
    if isinstance(runtime, ContainerRuntime):
        return ContainerProcess(ContainerEngine(runtime.engine), runtime.container)
    return SupervisedProcess(runtime.control, runtime.service)


def require_runtime(runtime: Runtime | None, resource: str) -> Runtime:
    """The runtime; NotApplicable names the remedy where the inventory gives none."""
    if runtime is None:
        raise NotApplicable(f"{resource}: the inventory names no runtime; add `runtime:` to let it be restarted")
    return runtime
