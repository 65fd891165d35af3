"""What a scenario acts on: the lab's shop, through which faults are injected, and the resource they hurt."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx

from blocks.schema import Inventory, Kind, Resource
from tasks.clients.runtime import Runtime
from tasks.core.errors import EvenkeelError
from tasks.core.models import Observation

CALL_SECONDS = 30.0
LOADS = ("database/blocking", "cache/fill", "nginx/hold")


class InjectionFailedError(EvenkeelError):
    """A fault could not be injected, or its symptom did not appear."""


class Unhealed(EvenkeelError):
    """A remediation is said to have healed, and what is measured apart from it says otherwise."""


class ShopLoads:
    """The shop's load endpoints; each call ends within 30 s. A lab without a shop has none: InjectionFailedError."""

    def __init__(self, shop: httpx.AsyncClient | None) -> None:
        self._shop = shop

    async def start(self, load: str, **parameters: float) -> dict[str, Any]:
        """Start a load, such as `cache/fill`; answers what it holds. InjectionFailedError says why not."""
        return await self._call("POST", load, parameters)

    async def stop(self, load: str) -> None:
        """Stop a load; one that does not run stays stopped."""
        await self._call("DELETE", load, None)

    async def stop_all(self) -> None:
        """Stop every load."""
        for load in LOADS:
            await self.stop(load)

    async def _call(self, method: str, load: str, parameters: dict[str, float] | None) -> dict[str, Any]:
        if self._shop is None:
            raise InjectionFailedError(f"{method} /load/{load}: the inventory names no shop, and this fault needs it")
        try:
            response = await self._shop.request(method, f"/load/{load}", json=parameters, timeout=CALL_SECONDS)
        except httpx.TransportError as error:
            raise InjectionFailedError(f"{method} /load/{load}: the shop does not answer ({type(error).__name__})") from error
        if response.is_error:
            raise InjectionFailedError(f"{method} /load/{load}: {response.status_code} {response.text[:200]}")
        return dict(response.json())


@dataclass(frozen=True)
class Stage:
    """A resource of a lab, the shop that uses it, and the way to every server of the lab."""

    resource: Resource
    inventory: Inventory
    loads: ShopLoads
    observe: Callable[[], Awaitable[Observation]]
    """Measures the resource anew, apart from any monitor."""
    open_client: Callable[[Resource], Any] = field(repr=False)
    logins: Mapping[tuple[str, str], tuple[str, str]] = field(repr=False)
    """(resource, purpose) -> user and password."""
    past_fix: Callable[[str], AbstractAsyncContextManager[None]] = field(repr=False)
    """`async with stage.past_fix("what it says")`: the records hold a closed fix of the resource with that message."""

    def resource_of(self, kind: Kind) -> Resource:
        """The lab's first resource of a kind; InjectionFailedError where there is none."""
        for resource in self.inventory.resources:
            if resource.kind is kind:
                return resource
        raise InjectionFailedError(f"inventory {self.inventory.name!r} has no resource of kind {kind}")

    def client(self, resource: str = "") -> Any:
        """The client that tools get, such as a RedisClient; of the stage's own resource where none is named."""
        return self.open_client(self._named(resource))

    def login(self, purpose: str, resource: str = "") -> tuple[str, str]:
        """User and password of a login of the inventory, such as `admin`; InjectionFailedError where there is none."""
        name = self._named(resource).name
        if (name, purpose) not in self.logins:
            raise InjectionFailedError(f"resources.{name}.logins.{purpose}: the inventory names none, and this fault needs it")
        return self.logins[name, purpose]

    def runtime(self, resource: str = "") -> Runtime:
        """What runs a server; InjectionFailedError where the inventory does not say."""
        found: Runtime | None = getattr(self.client(resource), "runtime", None)
        if found is None:
            raise InjectionFailedError(f"resources.{self._named(resource).name}.runtime: the inventory names none, and this fault needs it")
        return found

    def _named(self, resource: str) -> Resource:
        return self.inventory.resource(resource) if resource else self.resource
