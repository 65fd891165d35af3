"""Watch an inventory: sweep, publish its status, open incidents and remediate each while the sweeps go on."""

import asyncio
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger, runtime, tags
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.remediate import AutonomyChoice, remediate
from tasks.connecting import Live, live
from tasks.core.detection import Escalation, Track
from tasks.core.models import Incident
from tasks.planning import prepare_planner
from tasks.probing import Sweep, sweep
from tasks.publishing import publish_status
from tasks.recording import take_over_abandoned

TREND_LENGTH = 20
PUBLISH_EVERY_SECONDS = 60.0
NOBODY = "nobody"


@dataclass
class Watch:
    """What one monitor run remembers between its sweeps."""

    live: Live
    run_id: str
    autonomy: AutonomyChoice = "as configured"
    tracks: dict[str, Track] = field(default_factory=dict)
    trends: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=TREND_LENGTH)))
    remediations: dict[str, asyncio.Task[State[Any]]] = field(default_factory=dict)
    publication: asyncio.Task[None] | None = None
    preparation: asyncio.Task[None] | None = None
    published_at: float = float("-inf")
    shown: dict[str, tuple[str, str]] = field(default_factory=dict)
    sweeps: int = 0
    incidents: int = 0


@flow(name="monitor", flow_run_name="Watch {inventory}", persist_result=False)
async def monitor(
    inventory: str = "lab", sweep_every_seconds: float = 15, window_seconds: float = 90, autonomy: AutonomyChoice = "as configured"
) -> State[Any]:
    """Sweep an inventory until the next monitor run takes over, or the window ends.

    Args:
        inventory: Name of the inventory.
        sweep_every_seconds: Time from one sweep to the next, in seconds.
        window_seconds: Time after which the run ends by itself; longer than the schedule's interval, so that a late run leaves no gap.
        autonomy: How far remediations go; `propose` is a dry run. It can only make more cautious what the inventory allows.
    """
    if sweep_every_seconds <= 0 or window_seconds <= 0:
        raise ValueError("sweep_every_seconds and window_seconds: give a number of seconds above 0")
    async with live(inventory) as opened:
        watch = Watch(opened, str(runtime.flow_run.id), autonomy)
        await opened.records.take_over_monitor(inventory, watch.run_id, datetime.now(UTC))
        try:
            why = await _sweep_until_relieved(watch, sweep_every_seconds, window_seconds)
        finally:
            await _leave(watch)
        if watch.remediations:
            get_run_logger().info("%s; waiting for %d remediation(s)", why, len(watch.remediations))
            await asyncio.gather(*watch.remediations.values())
        await asyncio.gather(*filter(None, (watch.publication, watch.preparation)))
    return Completed(message=f"{watch.sweeps} sweeps, {watch.incidents} incident(s); {why}")


async def _sweep_until_relieved(watch: Watch, sweep_every_seconds: float, window_seconds: float) -> str:
    started = time.monotonic()
    due = started
    while True:
        await take_over_abandoned(watch.live)
        busy = frozenset(open_fix.resource for open_fix in await watch.live.records.open_fixes(watch.live.inventory.name))
        watch.sweeps += 1
        found = await sweep(watch.sweeps, watch.tracks, busy | frozenset(watch.remediations), await _escalations(watch.live))
        watch.tracks = dict(found.detection.tracks)
        for incident in found.detection.incidents:
            _start(watch, incident)
        _publish(watch, found)
        _collect(watch)
        if watch.preparation is None:
            watch.preparation = asyncio.create_task(prepare_planner(watch.live))
        if not await watch.live.records.monitor_swept(watch.live.inventory.name, watch.run_id, datetime.now(UTC)):
            return "the next run has taken over"
        due = max(due + sweep_every_seconds, time.monotonic())
        if due - started >= window_seconds:
            return f"the window of {window_seconds:g} s is over"
        await asyncio.sleep(max(due - time.monotonic(), 0))


async def _escalations(opened: Live) -> dict[str, Escalation]:
    """What is left to a person for now, so that the same fault does not call for one again and again."""
    pause_seconds = opened.inventory.rules.escalation_pause_seconds
    if not pause_seconds:
        return {}
    return await opened.records.escalations(opened.inventory.name, datetime.now(UTC) - timedelta(seconds=pause_seconds))


async def _leave(watch: Watch) -> None:
    """Where no other run has taken over, say that nobody sweeps the inventory now."""
    name = watch.live.inventory.name
    holder = await watch.live.records.current_monitor(name)
    if holder is not None and holder[0] == watch.run_id:
        await watch.live.records.take_over_monitor(name, NOBODY, datetime.now(UTC))


def _start(watch: Watch, incident: Incident) -> None:
    watch.incidents += 1
    get_run_logger().warning("incident: %s is %s: %s", incident.resource, incident.health, incident.summary)
    with tags("evenkeel", incident.resource, str(incident.health).lower()):  # a subflow has no tags of its deployment
        # The task copies the context, and with it the tags and the surrounding clients.
        watch.remediations[incident.resource] = asyncio.ensure_future(
            remediate(incident.resource, watch.live.inventory.name, incident, watch.autonomy, return_state=True)
        )


def _collect(watch: Watch) -> None:
    """Forget the remediations that are done; an error in one shows here, in its own run and in the record."""
    for name, task in list(watch.remediations.items()):
        if task.done():
            del watch.remediations[name]
            watch.tracks.pop(name, None)
            state = task.result()
            get_run_logger().info("%s: remediation ended as %s: %s", name, state.name, state.message)


def _publish(watch: Watch, found: Sweep) -> None:
    """Publish the status when it changed or is a minute old, beside the sweeps and not before them."""
    states = dict(found.detection.held_back) | dict.fromkeys(watch.remediations, "remediation under way")
    for observation in found.observations:
        headline = observation.reading.values.get(watch.live.catalog.probes[observation.kind].headline)
        if isinstance(headline, int | float):
            watch.trends[observation.resource].append(float(headline))
    shown = {one.resource: (one.health.value, states.get(one.resource, "")) for one in found.observations}
    if watch.publication is not None:
        if not watch.publication.done():
            return
        watch.publication.result()
    if shown == watch.shown and time.monotonic() - watch.published_at < PUBLISH_EVERY_SECONDS:
        return
    watch.shown, watch.published_at = shown, time.monotonic()
    trends = {name: tuple(values) for name, values in watch.trends.items()}
    watch.publication = asyncio.create_task(publish_status(watch.live, found.observations, trends, states))
