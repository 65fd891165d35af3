"""Gathering what a planner may know of an incident."""

import asyncio
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import JsonValue

from blocks.schema import Resource, Risk
from tasks.connecting import Live, current
from tasks.core.declare import NoArgs, Tool
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError
from tasks.core.log_templates import count_templates
from tasks.core.models import Attempt, Context, FixRecord, Health, Incident, Observation, Outcome
from tasks.core.parts import within_reach
from tasks.core.precedents import told
from tasks.core.rendering import number
from tasks.core.trends import still_predicted
from tasks.probing import probe_all

PAST_FIXES = 5
RECENT_CHANGES = 10
LOG_LINES = 200
VALUE_LENGTH = 60
TRIED_AGAIN = 3
AGAIN_AFTER_SECONDS = 1.0


@task(name="gather", task_run_name="gather context of {incident.resource}", cache_policy=NO_CACHE, persist_result=False)
async def gather_context(incident: Incident, attempts: tuple[Attempt, ...]) -> Context:
    """The resource measured anew, what its read-only tools say, its dependencies, its log and its past fixes."""
    return await context_of(current(), incident, attempts)


async def context_of(live: Live, incident: Incident, attempts: tuple[Attempt, ...]) -> Context:
    """The same outside of a flow. Whatever came from servers, records or people has no secrets left in it."""
    resource = live.inventory.resource(incident.resource)
    relatives = sorted(within_reach(resource.name, live.inventory.resources))
    measured, facts, past, precedents, lines = await asyncio.gather(
        _measured(live, incident, [resource, *(live.inventory.resource(name) for name in relatives)]),
        _read_facts(live, resource),
        live.records.history(resource=resource.name, inventory=live.inventory.name, limit=PAST_FIXES + 1),
        live.records.precedents(incident, PAST_FIXES),
        _log_lines(live, resource),
    )
    observation, *dependencies = measured
    observation = still_predicted(observation, incident.observation.findings, resource)
    # The remediation that asks is itself on record.
    past = [record for record in past if record.id != incident.id][:PAST_FIXES]
    return Context(
        incident=incident,
        resource=resource,
        observation=observation,
        facts=facts,
        dependencies=tuple(dependencies),
        past_fixes=tuple(live.redactor.text(told(precedent)) for precedent in precedents),
        recent_changes=tuple(live.redactor.text(line) for record in past for line in _changes(record))[:RECENT_CHANGES],
        error_lines=lines,
        attempts=tuple(attempt.model_copy(update={"comment": live.redactor.text(attempt.comment)}) for attempt in attempts),
        tools=live.catalog.offered(observation),
    )


async def _measured(live: Live, incident: Incident, resources: list[Resource]) -> list[Observation]:
    """The incident's resource and its relatives. On a busy machine a measurement fails, or looks like a fault of the server.

    So what could not be measured is tried again, and what is quite another fault than the incident's takes a second witness.
    """
    found = await probe_all(live, resources)
    for tried in range(TRIED_AGAIN):
        doubtful = [place for place, one in enumerate(found) if one.health is Health.UNKNOWN]
        if not tried and _is_another(found[0], incident):
            doubtful.append(0)
        if not doubtful:
            break
        await asyncio.sleep(AGAIN_AFTER_SECONDS)
        for place, again in zip(doubtful, await probe_all(live, [resources[place] for place in doubtful]), strict=True):
            found[place] = again
    return found


def _is_another(observation: Observation, incident: Incident) -> bool:
    return observation.health.is_breach and {one.symptom for one in observation.findings}.isdisjoint(incident.symptoms)


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
        why = live.redactor.text(str(error)) or "no answer in time"
        get_run_logger().warning("%s on %s: %s", tool.name, resource.name, why)
        return {"error": why}
    return live.redactor.value(change.after)


async def _log_lines(live: Live, resource: Resource) -> tuple[str, ...]:
    runtime = getattr(live.tool_client(resource), "runtime", None)
    if runtime is None:
        return ()
    try:
        lines = await runtime.log(lines=LOG_LINES)
    except EvenkeelError as error:
        return (live.redactor.text(f"log: {error}"),)
    # As one text, for a private key goes over several lines; and before the templates, which could cut a secret in two.
    return count_templates(live.redactor.text("\n".join(lines)).splitlines())


def _changes(record: FixRecord) -> list[str]:
    """What a remediation changed, the last change first."""
    outcomes = [outcome for attempt in record.attempts for outcome in attempt.outcomes if outcome.changed_something]
    return [_change(outcome) for outcome in reversed(outcomes)]


def _change(outcome: Outcome) -> str:
    before, after = (outcome.change.before, outcome.change.after) if outcome.change else ({}, {})
    changed = [f"{name} {_short(before.get(name))} -> {_short(value)}" for name, value in after.items() if before.get(name) != value]
    what = ", ".join(changed) or "its reply was lost, so nobody knows what it changed"
    took_back = " (took an earlier step back)" if outcome.undoes else ""
    return f"{outcome.started_at:%Y-%m-%d %H:%M:%SZ} {outcome.step.tool}{took_back}: {what}"


def _short(value: JsonValue) -> str:
    return number(value)[:VALUE_LENGTH]
