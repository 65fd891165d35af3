"""An incident of a Redis, and a planner whose Gemini is a scripted server on a real socket."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.genai  # noqa: F401 - half a second that no test's deadline should pay
import pytest
from pydantic import JsonValue

from blocks.gemini_settings import GeminiSettings
from blocks.schema import Kind, Limits, Resource, Role, Rules
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, Script, structured
from tasks.catalog import Catalog, load_catalog
from tasks.core.models import Context, Plan, Step
from tasks.planners.fallback import FallbackPlanner, MeteredModel
from tasks.planners.gemini import GeminiPlanner
from tasks.planners.gemini_client import GeminiAccess, GeminiClient
from tasks.planners.runbooks import RunbookPlanner
from tasks.records.repository import Records
from tests.tasks.unwell import incident_of, observation_of

KEY = "a-key-that-nobody-may-see"
ACCOUNT = "gemini/unit"
LOGGER = logging.getLogger("evenkeel.test")
GOOD: dict[str, Any] = {
    "evidence": ["memory_percent is 97"],
    "reasoning": "The limit is smaller than what is kept.",
    "diagnosis": "maxmemory is too small",
    "decision": "act",
    "steps": [{"tool": "redis_set_maxmemory", "args": {"mebibytes": 96}, "why": "loses nothing"}],
    "expected": "memory_percent < 80",
}


def answer(**changes: Any) -> Answer:
    """A good answer with other fields."""
    return structured({**GOOD, **changes})


def step(tool: str = "redis_set_maxmemory", **fields: Any) -> dict[str, Any]:
    """A step of a good answer with other fields."""
    return {**GOOD["steps"][0], "tool": tool, **fields}


@pytest.fixture
def context() -> Context:
    """A cache at 97 % of its memory; all that its tools read without arguments is known."""
    resource = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1", role=Role.CACHE, limits=Limits(memory_mib=128))
    values: dict[str, JsonValue] = {
        "memory_percent": 97.0,
        "used_memory_mib": 62.1,
        "maxmemory_mib": 64.0,
        "maxmemory_policy": "noeviction",
    }
    observation = observation_of(resource, "memory_high", values=values, taken_at=datetime.now(UTC))
    return Context(
        incident=incident_of(observation),
        resource=resource,
        observation=observation,
        facts={"redis_info": {"used_memory_mib": 62.1, "maxmemory_mib": 64.0, "maxmemory_policy": "noeviction"}},
        tools=load_catalog().offered(observation),
    )


@dataclass
class Desk:
    """A fallback planner, the server that it asks, and the records that it counts in."""

    server: GeminiServer
    settings: GeminiSettings
    records: Records
    catalog: Catalog
    read: Callable[[Step], Awaitable[dict[str, JsonValue]]]
    rules: Rules = field(default_factory=Rules)
    clients: list[GeminiClient] = field(default_factory=list)
    seconds: float = 0

    def open_model(self) -> GeminiPlanner:
        """The planner on one client, as in a live inventory."""
        if not self.clients:
            self.clients.append(GeminiClient(self.settings, GeminiAccess(api_key=KEY)))
        return GeminiPlanner(self.clients[0], self.catalog, self.rules, self.read)

    async def plan(self, context: Context) -> Plan:
        """One plan; `seconds` is how long it took."""
        model = MeteredModel(settings=self.settings, open_model=self.open_model, records=self.records, account=ACCOUNT, logger=LOGGER)
        planner = FallbackPlanner(model, RunbookPlanner(self.catalog, self.rules), LOGGER)
        started = time.monotonic()
        try:
            return await planner.plan(context)
        finally:
            self.seconds = time.monotonic() - started


OpenDesk = Callable[..., Any]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between requests are a tenth of the real ones."""
    monkeypatch.setattr("tasks.planners.gemini_client.FIRST_PAUSE_SECONDS", 0.05)


async def _nothing(asked: Step) -> dict[str, JsonValue]:
    raise AssertionError(f"{asked.tool} was read")


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Empty records."""
    async with await Records.open(f"sqlite:///{tmp_path}/records.db") as opened:
        yield opened


@pytest.fixture
def desk(records: Records) -> OpenDesk:
    """`async with desk(script) as desk: await desk.plan(context)`; keywords are settings."""

    @asynccontextmanager
    async def open_desk(
        script: Script, *, read: Any = _nothing, catalog: Catalog | None = None, rules: Rules | None = None, **settings: Any
    ) -> AsyncIterator[Desk]:
        async with GeminiServer(script) as server:
            given = {"base_url": server.url, "timeout_seconds": 2, "total_seconds": 5, **settings}
            opened = Desk(server, GeminiSettings(**given), records, catalog or load_catalog(), read, rules or Rules())
            try:
                yield opened
            finally:
                await asyncio.gather(*(client.close() for client in opened.clients))

    return open_desk
