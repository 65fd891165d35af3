"""What planning with Gemini costs beside the model's own time, and how many tokens an incident takes, in front of a scripted server.

Real faults on a real lab, real contexts; the model answers at once, so what is left of a plan's time is the project's own and the SDK's.
"""

import logging
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from blocks.credentials import Login
from blocks.gemini import GeminiBlock
from blocks.gemini_settings import GeminiSettings
from blocks.inventory_file import parse_inventory
from blocks.register import read_environment_file
from compose.description import LabDescription, LabError
from compose.gemini_scripts import sensible
from compose.gemini_server import GeminiServer
from tasks.catalog import load_catalog
from tasks.clients.polling import poll
from tasks.connecting import Live
from tasks.context import context_of
from tasks.core.detection import open_incident
from tasks.core.models import Context, Observation
from tasks.planners.gemini_client import load_sdk
from tasks.planning import planner_of
from tasks.probing import probe_resource
from tasks.records.repository import Records
from tasks.scenarios.stage import ShopLoads
from tests.benchmarks.hard_coded import FAULTS

RESOURCES = {
    "redis_memory_pressure": "shop-cache",
    "postgres_connection_overload": "shop-db",
    "nginx_connection_overload": "shop-web",
}
BREACH_SECONDS = 30.0
LOGGER = logging.getLogger(__name__)


async def planning(lab: LabDescription, directory: Path, repeats: int) -> dict[str, Any]:
    """Fault -> seconds of planning without the model's, tokens, requests and dollars of its incident, and who planned.

    `sdk_load_seconds` is paid once a process; a monitor pays it after its first sweep, while nothing waits for it.
    """
    started = time.perf_counter()
    load_sdk()
    report: dict[str, Any] = {"sdk_load_seconds": round(time.perf_counter() - started, 2), "incidents": {}}
    async with GeminiServer(sensible) as server, _live(lab, directory, server.url) as live:
        for name, resource in RESOURCES.items():
            context = await _context(lab, live, name, resource)
            report["incidents"][name] = await _measured(live, context, repeats)
    return report


async def _measured(live: Live, context: Context, repeats: int) -> dict[str, Any]:
    planner = planner_of(live, LOGGER)
    first = await planner.plan(context)  # opens the connection, once a monitor
    own: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        plan = await planner.plan(context)
        own.append(time.perf_counter() - started - plan.usage.seconds)
    return {
        "planner": first.planner,
        "decision": first.decision.value,
        "n": repeats,
        "median_own_seconds": round(statistics.median(own), 4),
        "max_own_seconds": round(max(own), 4),
        "requests": first.usage.requests,
        "input_tokens": first.usage.input_tokens,
        "output_tokens": first.usage.output_tokens,
        "dollars": round(first.usage.dollars, 5),
    }


async def _context(lab: LabDescription, live: Live, name: str, resource: str) -> Context:
    """What a planner would know in the middle of the fault."""
    fault = FAULTS[name]

    async def breach() -> Observation | None:
        seen = await probe_resource(live, live.inventory.resource(resource))
        return seen if seen.health.is_breach else None

    async with httpx.AsyncClient(base_url=lab.app.url, trust_env=False) as shop:
        loads = ShopLoads(shop)
        await loads.start(fault.load, **fault.parameters)
        try:
            observation = await poll(breach, seconds=BREACH_SECONDS)
            if observation is None:
                raise LabError(f"{name}: {resource} is not in breach {BREACH_SECONDS:g} s after the injection")
            return await context_of(live, open_incident(live.inventory.name, observation, datetime.now(UTC)), ())
        finally:
            await loads.stop(fault.load)
            await fault.reset(lab)


@asynccontextmanager
async def _live(lab: LabDescription, directory: Path, base_url: str) -> AsyncIterator[Live]:
    """The lab's inventory as a flow would have it, without a Prefect server."""
    environment = read_environment_file(lab.environment_path.read_text(encoding="utf-8"))
    registration = parse_inventory(lab.inventory_path.read_text(encoding="utf-8"), environment)
    logins = {key: Login(username=one.username, password=one.password) for key, one in registration.logins.items()}
    settings = GeminiSettings(base_url=base_url, tokens_per_day=10**9, dollars_per_day=10**6)
    gemini = GeminiBlock(settings=settings, api_key=SecretStr("scripted"))
    async with AsyncExitStack() as stack:
        records = await Records.open(f"sqlite:///{directory / 'planning.db'}")
        stack.push_async_callback(records.close)
        yield Live(registration.inventory, records, load_catalog(), logins, gemini, stack)
