"""What a scenario acts on: the lab's shop, through which faults are injected, and the resource they hurt."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from blocks.schema import Resource
from tasks.core.errors import EvenkeelError
from tasks.core.models import Observation

CALL_SECONDS = 30.0
LOADS = ("database/blocking", "cache/fill", "nginx/hold")


class InjectionFailedError(EvenkeelError):
    """A fault could not be injected, or its symptom did not appear."""


class ShopLoads:
    """The shop's load endpoints; each call ends within 30 s."""

    def __init__(self, shop: httpx.AsyncClient) -> None:
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
        try:
            response = await self._shop.request(method, f"/load/{load}", json=parameters, timeout=CALL_SECONDS)
        except httpx.TransportError as error:
            raise InjectionFailedError(f"{method} /load/{load}: the shop does not answer ({type(error).__name__})") from error
        if response.is_error:
            raise InjectionFailedError(f"{method} /load/{load}: {response.status_code} {response.text[:200]}")
        return dict(response.json())


@dataclass(frozen=True)
class Stage:
    """A resource of a lab, and the shop that uses it."""

    resource: Resource
    loads: ShopLoads
    observe: Callable[[], Awaitable[Observation]]
    """Measures the resource anew, apart from any monitor."""
