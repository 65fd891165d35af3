"""A ready client for one HTTP service."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from blocks.schema import Resource
from tasks.clients.causes import is_caused_by
from tasks.clients.runtime import Runtime
from tasks.core.errors import ProbeBroken


@dataclass(frozen=True)
class WebClient:
    """Requests to one HTTP service."""

    http: httpx.AsyncClient
    resource: Resource
    runtime: Runtime | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()


@contextmanager
def usable_address(resource: Resource) -> Iterator[None]:
    """ProbeBroken where the resource's address is no URL, or its name does not resolve: neither tells of the service."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ProbeBroken(f"{resource.name}: the address {resource.address} is no URL: {error}") from error
    except httpx.ConnectError as error:
        if is_caused_by(error, socket.gaierror):
            raise ProbeBroken(f"{resource.name}: the name in {resource.address} does not resolve") from error
        raise
