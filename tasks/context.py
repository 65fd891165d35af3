"""Gathering what a planner may know of an incident."""

import asyncio
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import JsonValue

from blocks.schema import Resource, Risk, dependencies_of
from tasks.catalog import summarise
from tasks.connecting import Live, current
from tasks.core.declare import NoArgs, Tool
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError
from tasks.core.models import Attempt, Context, FixRecord, Incident, Observation
from tasks.probing import probe_all

PAST_FIXES = 5
LOG_LINES = 20


@task(name="gather", task_run_name="gather context of {incident.resource}", cache_policy=NO_CACHE, persist_result=False)
async def gather_context(incident: Incident, attempts: tuple[Attempt, ...]) -> Context:
    """The resource measured anew, what its read-only tools say, its dependencies, its log and its past fixes."""
    live = current()
    resource = live.inventory.resource(incident.resource)
    relatives = sorted(dependencies_of(resource.name, live.inventory.resources))
    measured, facts, past, lines = await asyncio.gather(
        probe_all(live, [resource, *(live.inventory.resource(name) for name in relatives)]),
        _read_facts(live, resource),
        live.records.history(resource=resource.name, inventory=live.inventory.name, limit=PAST_FIXES),
        _log_lines(live, resource),
    )
    observation, *dependencies = measured
    return Context(
        incident=incident,
        resource=resource,
        observation=observation,
        facts=facts,
        dependencies=tuple(dependencies),
        past_fixes=tuple(_line(record) for record in past),
        error_lines=tuple(lines),
        attempts=attempts,
        tools=tuple(summarise(tool) for tool in live.catalog.tools_for(resource.kind).values()),
    )


async def first_incident(live: Live, resource: Resource) -> tuple[Incident | None, Observation]:
    """The incident that one observation makes, for a remediation started by hand; None where the resource is not in breach."""
    observation = (await probe_all(live, [resource]))[0]
    if not observation.health.is_breach:
        return None, observation
    return open_incident(live.inventory.name, observation, datetime.now(UTC)), observation


async def _read_facts(live: Live, resource: Resource) -> dict[str, dict[str, JsonValue]]:
    readers = [tool for tool in live.catalog.tools_for(resource.kind).values() if tool.risk is Risk.READ_ONLY and tool.args_model is NoArgs]
    read = await asyncio.gather(*(_read(live, resource, tool) for tool in readers))
    return dict(zip((tool.name for tool in readers), read, strict=True))


async def _read(live: Live, resource: Resource, tool: Tool) -> dict[str, JsonValue]:
    try:
        async with asyncio.timeout(tool.timeout_seconds):
            change = await tool.function(live.tool_client(resource), NoArgs())
    except (EvenkeelError, TimeoutError) as error:
        # A server in trouble may not answer; that is a fact too.
        get_run_logger().warning("%s on %s: %s", tool.name, resource.name, error or type(error).__name__)
        return {"error": str(error) or "no answer in time"}
    return dict(change.after)


async def _log_lines(live: Live, resource: Resource) -> list[str]:
    runtime = getattr(live.tool_client(resource), "runtime", None)
    if runtime is None:
        return []
    try:
        lines = await runtime.log(lines=200)
    except EvenkeelError as error:
        return [f"log: {error}"]
    wanted = [
        line for line in lines if any(level in line for level in ("ERROR", "WARNING", "CRITICAL", "FATAL", "[error]", "[crit]", "[alert]"))
    ]
    return wanted[-LOG_LINES:]


def _line(record: FixRecord) -> str:
    tools = ", ".join(outcome.step.tool for attempt in record.attempts for outcome in attempt.outcomes) or "no step"
    return f"{record.opened_at:%Y-%m-%d %H:%M:%SZ} {record.incident.summary} -> {tools}: {record.verdict or 'open'}, {record.message}"
