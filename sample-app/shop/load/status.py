"""GET /load: every load at a glance."""

from __future__ import annotations

import asyncio
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class Load(Protocol):
    """What each kind of load offers beside its own endpoints."""

    def routes(self) -> list[Route]:
        """Its endpoints."""

    async def status(self) -> dict[str, object]:
        """Its state, without raising when a dependency is down."""

    async def close(self, seconds: float) -> None:
        """Stop it, in `seconds` at most."""


class Loads:
    """The loads by name."""

    def __init__(self, loads: dict[str, Load]) -> None:
        self._loads = loads

    def routes(self) -> list[Route]:
        """GET /load, and the endpoints of each."""
        return [Route("/load", self.show), *(route for load in self._loads.values() for route in load.routes())]

    async def show(self, _request: Request) -> JSONResponse:
        """The status of each load."""
        statuses = await asyncio.gather(*(load.status() for load in self._loads.values()))
        return JSONResponse(dict(zip(self._loads, statuses, strict=True)))

    async def close(self, seconds: float) -> None:
        """Stop all of them at the same time."""
        await asyncio.gather(*(load.close(seconds) for load in self._loads.values()))
