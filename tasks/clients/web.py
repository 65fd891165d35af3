"""A ready client for one HTTP service."""

from dataclasses import dataclass

import httpx

from blocks.schema import Resource
from tasks.clients.runtime import Runtime


@dataclass(frozen=True)
class WebClient:
    """Requests to one HTTP service."""

    http: httpx.AsyncClient
    resource: Resource
    runtime: Runtime | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()
