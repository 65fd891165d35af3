"""Calls to a Docker engine through its SDK, which blocks: each runs in a thread, on a connection of its own, and has a deadline."""

import asyncio
import functools
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from tasks.clients.causes import is_caused_by
from tasks.clients.container_facts import Inspected
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

if TYPE_CHECKING:
    import docker

T = TypeVar("T")
CALL_SECONDS = 10.0
DEFAULT_PORT = 2375
NEVER_SENT = (FileNotFoundError, PermissionError, ConnectionRefusedError)
REASON_LENGTH = 300


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # The event loop's own are few, and a hanging engine would keep them from everybody else.
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="container-engine")


class ContainerEngine:
    """One Docker engine, at unix:///path or tcp://host:port. Holds no connection between calls."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def call(self, container: str, action: "Callable[[docker.DockerClient], T]", *, sent: bool, seconds: float = CALL_SECONDS) -> T:
        """What `action` answers, which gets a connected client. `sent`: it changes something, so that a lost reply leaves it unknown.

        `seconds` bounds each answer of the engine. Unreachable: nothing was sent. NotApplicable: there is no such container, or it is
        in the wrong state for this. ToolFailed: the engine refuses. OutcomeUnknown: the reply to a change was lost.
        """
        work = asyncio.get_running_loop().run_in_executor(_threads(), self._connected, container, action, sent, seconds)
        try:
            async with asyncio.timeout(seconds + CALL_SECONDS):
                return await work
        except TimeoutError as error:
            raise _lost(sent, f"{container}: the engine at {self.url} did not end within {seconds + CALL_SECONDS:g} s") from error

    def _connected(self, container: str, action: "Callable[[docker.DockerClient], T]", sent: bool, seconds: float) -> T:
        # Imported here, for it takes a third of a second that nobody without containers has to wait.
        import docker.errors
        import requests

        try:
            # The SDK leaves its socket open where it can't connect.
            with self._dialled(seconds):
                client = docker.DockerClient(base_url=self.url, timeout=seconds)
        except (OSError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise Unreachable(f"{container}: no engine answers at {self.url}: {str(error)[:REASON_LENGTH]}") from error
        try:
            return action(client)
        except docker.errors.NotFound as error:
            raise NotApplicable(f"{container}: {error.explanation}") from error
        except docker.errors.APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                raise NotApplicable(f"{container}: {error.explanation}") from error
            raise ToolFailed(f"{container}: the engine refused: {str(error.explanation)[:REASON_LENGTH]}") from error
        except requests.exceptions.RequestException as error:
            never = any(is_caused_by(error, kind) for kind in NEVER_SENT)
            raise _lost(sent and not never, f"{container}: the engine's reply was lost ({type(error).__name__})") from error
        finally:
            client.close()

    def _dialled(self, seconds: float) -> socket.socket:
        address = urlsplit(self.url)
        if address.scheme == "tcp":
            return socket.create_connection((address.hostname, address.port or DEFAULT_PORT), timeout=seconds)
        dialled = socket.socket(socket.AF_UNIX)
        try:
            dialled.settimeout(seconds)
            dialled.connect(address.path)
        except OSError:
            dialled.close()
            raise
        return dialled

    async def inspect(self, container: str) -> Inspected:
        """What the engine tells of a container; NotApplicable where there is none."""
        return await self.call(container, lambda client: client.api.inspect_container(container), sent=False)

    async def inspect_each(self, containers: Iterable[str]) -> dict[str, Inspected | None]:
        """The same of several on one connection; None for those that do not exist."""
        names = tuple(containers)

        def inspect(client: "docker.DockerClient") -> dict[str, Inspected | None]:
            import docker.errors

            found: dict[str, Inspected | None] = {}
            for name in names:
                try:
                    found[name] = client.api.inspect_container(name)
                except docker.errors.NotFound:
                    found[name] = None
            return found

        return await self.call(", ".join(names[:3]), inspect, sent=False)

    async def update(self, container: str, changes: Mapping[str, int]) -> None:
        """Change limits, by the names of the engine's API such as Memory and NanoCpus; the SDK knows no NanoCpus."""

        def update(client: "docker.DockerClient") -> None:
            url = f"{client.api.base_url}/v{client.api.api_version}/containers/{container}/update"
            response = client.api.post(url, json=dict(changes), timeout=CALL_SECONDS)
            if not response.ok:
                raise ToolFailed(f"{container}: the engine refused: {response.json().get('message', '')[:REASON_LENGTH]}")

        await self.call(container, update, sent=True)


def _lost(sent: bool, message: str) -> Unreachable | OutcomeUnknown:
    return OutcomeUnknown(message) if sent else Unreachable(f"{message}; nothing was changed")
