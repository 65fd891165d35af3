"""Watch an inventory: sweep, publish its status, open incidents and remediate each while the sweeps go on.

The same by parameter for some resources only, a short time and for a cause: so the watcher looks at what it heard of.
"""

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
from tasks.core.detection import CONFIRMATIONS, Escalation, Track
from tasks.core.models import Health, Incident
from tasks.core.parts import Part, Share, within_reach
from tasks.core.showing import Board
from tasks.core.silence import Silences
from tasks.core.trends import History, joined
from tasks.planning import prepare_planner
from tasks.probing import Known, Sweep, sweep
from tasks.publishing import publish_discovery, publish_status, published
from tasks.pulse import Pulse
from tasks.recording import take_over_abandoned

TREND_LENGTH = 20
REMEDIATIONS_AT_ONCE = 25
KEEP_EVERY_SECONDS = 75.0
"""Runs that follow each other each minute leave their readings when they end; one that is killed takes so much with it at most."""
NEIGHBOUR_IS_GONE_AFTER = timedelta(minutes=2)
UNWELL = tuple(health for health in Health if health.is_breach)
SWEEPS_UNTIL_GONE = 1.5
"""A shard that has not swept for so long has its resources watched by the others; both may do so for a moment, one fixes."""


@dataclass
class Watch:
    """What one monitor run remembers between its sweeps."""

    live: Live
    run_id: str
    autonomy: AutonomyChoice = "as configured"
    only: frozenset[str] = frozenset()
    """Empty: everything."""
    share: Share = field(kw_only=True)
    silences: Silences = field(default_factory=Silences)
    tracks: dict[str, Track] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    """Resources whose histories of before this run no longer count."""
    is_joined: bool = False
    keep_at: float = field(default_factory=lambda: time.monotonic() + KEEP_EVERY_SECONDS)
    keeping: asyncio.Task[None] | None = None
    trends: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=TREND_LENGTH)))
    remediations: dict[str, asyncio.Task[State[Any]]] = field(default_factory=dict)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REMEDIATIONS_AT_ONCE))
    publication: asyncio.Task[None] | None = None
    preparation: asyncio.Task[None] | None = None
    board: Board = field(init=False)
    relieves: bool = False
    """Whether another run swept until this one took over."""
    leads: bool = True
    """Of several monitors of an inventory one shows the table where nothing changes."""
    sweeps: int = 0
    incidents: int = 0

    def __post_init__(self) -> None:
        self.board = Board(len(self.live.inventory.resources))


def _run_name() -> str:
    given: dict[str, Any] = runtime.flow_run.parameters
    resources = given.get("resources") or []
    if not resources:
        part = given.get("part", "everything")
        told = ["" if part == "everything" else part, given.get("pool"), given.get("shard") and f"shard {given['shard']}"]
        return ", ".join(filter(None, [f"Watch {given.get('inventory', 'lab')}", *told]))
    more = f" and {len(resources) - 1} more" if len(resources) > 1 else ""
    return f"Look at {resources[0]}{more}: {given.get('cause') or 'by hand'}"[:200]


@flow(name="monitor", flow_run_name=_run_name, persist_result=False)
async def monitor(
    inventory: str = "lab",
    sweep_every_seconds: float = 15,
    window_seconds: float = 90,
    autonomy: AutonomyChoice = "as configured",
    resources: list[str] | None = None,
    cause: str = "",
    part: Part = "everything",
    pool: str = "",
    shard: str = "",
) -> State[Any]:
    """Sweep an inventory until the next monitor run takes over, or the window ends.

    Args:
        inventory: Name of the inventory.
        sweep_every_seconds: Time from one sweep to the next, in seconds.
        window_seconds: Time after which the run ends by itself; longer than the schedule's interval, so that a late run leaves no gap.
        autonomy: How far remediations go; `propose` is a dry run. It can only make more cautious what the inventory allows.
        resources: Only these and what they depend on, until each has an incident or the window ends. Such a run takes no other's place.
        cause: Why just these. It counts as the first of the two witnesses that an incident takes.
        part: What this monitor watches: everything, or only what is local or in Google Cloud, while another watches the rest.
        pool: Only the resources that name this work pool; empty: those that name none.
        shard: One of several monitors of the same part and pool, by any name; they divide the resources among those that are at work.
    """
    if sweep_every_seconds <= 0 or window_seconds <= 0:
        raise ValueError("sweep_every_seconds and window_seconds: give a number of seconds above 0")
    async with live(inventory) as opened:
        share = Share(inventory=inventory, part=part, pool=pool, shard=shard)
        watch = Watch(opened, str(runtime.flow_run.id), autonomy, share=share)
        if resources:
            why = await _look(watch, resources, cause, sweep_every_seconds, window_seconds)
        else:
            await _begin(watch, timedelta(seconds=SWEEPS_UNTIL_GONE * sweep_every_seconds))
            await publish_discovery(opened)
            try:
                why = await _sweep_until_relieved(watch, sweep_every_seconds, window_seconds)
            except Exception:
                # Whatever has ended the sweeps.
                await _see_out(watch)
                raise
            finally:
                await _leave(watch)
        if watch.remediations:
            get_run_logger().info("%s; waiting for %d remediation(s)", why, len(watch.remediations))
            await _see_out(watch)
        await asyncio.gather(*filter(None, (watch.publication, watch.preparation, watch.keeping)))
    return Completed(message=f"{watch.sweeps} sweeps, {watch.incidents} incident(s); {why}")


async def _begin(watch: Watch, gone_after: timedelta) -> None:
    """Take over from the run before, where there is one."""
    records, key, now = watch.live.records, watch.share.key, datetime.now(UTC)
    before = await records.current_monitor(key)
    last_sweep_at = None if before is None else before[1]
    watch.board.swept_before(last_sweep_at)
    watch.relieves = last_sweep_at is not None and now - last_sweep_at < gone_after
    await records.take_over_monitor(key, watch.run_id, now)


async def _sweep_until_relieved(watch: Watch, sweep_every_seconds: float, window_seconds: float) -> str:
    started = time.monotonic()
    due, pulse = started, Pulse(watch.share.key)
    while True:
        await _divide(watch, timedelta(seconds=SWEEPS_UNTIL_GONE * sweep_every_seconds))
        found = await _sweep(watch)
        _publish(watch, found)
        _collect(watch)
        _keep_histories(watch)
        if watch.preparation is None:
            watch.preparation = asyncio.create_task(prepare_planner(watch.live))
        if not await watch.live.records.monitor_swept(watch.share.key, watch.run_id, datetime.now(UTC)):
            return "the next run has taken over"
        pulse.swept()
        due = max(due + sweep_every_seconds, time.monotonic())
        if due - started >= window_seconds:
            return f"the window of {window_seconds:g} s is over"
        await asyncio.sleep(max(due - time.monotonic(), 0))


async def _look(watch: Watch, resources: list[str], cause: str, sweep_every_seconds: float, window_seconds: float) -> str:
    """Sweep what there is a cause to look at; what is well at first may not be a moment later."""
    known = watch.live.inventory.resources
    asked = {watch.live.inventory.resource(name).name for name in resources}
    watch.only = frozenset(asked.union(*(within_reach(name, known) for name in asked)))
    if cause:
        now = datetime.now(UTC)
        watch.tracks = {name: Track(health=Health.UNKNOWN, since=now, breaches=CONFIRMATIONS - 1) for name in asked}
    met: set[str] = set()
    deadline = time.monotonic() + window_seconds
    while True:
        found = await _sweep(watch)
        met |= watch.remediations.keys()
        if asked <= met:
            return "each has an incident"
        _collect(watch)
        if time.monotonic() + sweep_every_seconds > deadline:
            return ", ".join(f"{one.resource} is {one.health}" for one in found.observations if one.resource in asked)
        await asyncio.sleep(sweep_every_seconds)


async def _sweep(watch: Watch) -> Sweep:
    """One sweep, and a remediation for each incident that it opens."""
    await take_over_abandoned(watch.live, watch.silences, own=watch.remediations, within_reach=watch.only)
    open_fixes = await watch.live.records.open_fixes(watch.live.inventory.name)
    busy = frozenset(watch.remediations).union(open_fix.resource for open_fix in open_fixes)
    # What a remediation makes of a figure is no rise or fall of its own.
    watch.forgotten |= busy
    watch.histories |= {name: {} for name in busy}
    watch.sweeps += 1
    known = Known(watch.tracks, watch.histories, busy, await _escalations(watch.live), watch.relieves)
    found = await sweep(watch.sweeps, known, watch.only)
    watch.tracks, watch.histories = dict(found.detection.tracks), found.histories
    for incident in found.detection.incidents:
        _start(watch, incident)
    return found


async def _divide(watch: Watch, gone_after: timedelta) -> None:
    """Settle what falls to this monitor now, and learn from the others what they found of the rest: a root cause may lie there."""
    records, inventory, now = watch.live.records, watch.live.inventory, datetime.now(UTC)
    keys = await records.monitors_at_work(inventory.name, now - max(gone_after, NEIGHBOUR_IS_GONE_AFTER))
    others = [Share.of_key(key) for key in keys if key != watch.share.key]
    if any(other.is_beside(watch.share) for other in others):
        keys = await records.monitors_at_work(inventory.name, now - gone_after)
    watch.leads = watch.share.key == min((*keys, watch.share.key))
    own = watch.share.own(inventory.resources, [Share.of_key(key) for key in keys])
    fresh = own - watch.only
    watch.only = own
    if fresh:
        watch.histories |= await records.histories(inventory.name, fresh)
        watch.board.left({one.resource: one.health for one in await records.statuses(inventory.name) if one.resource in fresh})
    watched = {one.name for one in inventory.resources if any(other.covers(one) for other in others)} - own
    seen = await records.statuses(inventory.name, UNWELL) if watched else []
    told = {one.resource: Track(health=one.health, since=one.taken_at) for one in seen if one.resource in watched}
    watch.tracks = {name: track for name, track in watch.tracks.items() if name in own} | told


async def _escalations(opened: Live) -> dict[str, Escalation]:
    """What is left to a person for now, so that the same fault does not call for one again and again.

    Who has changed the inventory or its rules since then has answered, and it is tried again.
    """
    pause_seconds = opened.inventory.rules.escalation_pause_seconds
    if not pause_seconds:
        return {}
    since = datetime.now(UTC) - timedelta(seconds=pause_seconds)
    return await opened.records.escalations(opened.inventory.name, max(since, opened.configured_at or since))


async def _leave(watch: Watch) -> None:
    """Where no other run has taken over, say that nobody sweeps the inventory now."""
    await _hand_over(watch)
    holder = await watch.live.records.current_monitor(watch.share.key)
    if holder is not None and holder[0] == watch.run_id:
        await watch.live.records.release_monitor(watch.share.key, datetime.now(UTC))


def _start(watch: Watch, incident: Incident) -> None:
    watch.incidents += 1
    get_run_logger().warning("incident: %s is %s: %s", incident.resource, incident.health, incident.summary)
    with tags("evenkeel", incident.resource, str(incident.health).lower()):  # a subflow has no tags of its deployment
        # The task copies the context, and with it the tags and the surrounding clients.
        watch.remediations[incident.resource] = asyncio.create_task(_remediate(watch, incident))


async def _remediate(watch: Watch, incident: Incident) -> State[Any]:
    """Begun as soon as there is room: an outage of a thousand servers must not end in a thousand runs that wait for each other."""
    async with watch.room:
        state: State[Any] = await remediate(incident.resource, watch.live.inventory.name, incident, watch.autonomy, return_state=True)
    return state


def _collect(watch: Watch) -> None:
    """Forget the remediations that are done; an error in one shows here, in its own run and in the record."""
    for name, task in list(watch.remediations.items()):
        if not task.done():
            continue
        del watch.remediations[name]
        watch.tracks.pop(name, None)
        if task.cancelled():
            get_run_logger().warning("%s: remediation was cancelled, as another process has taken it over", name)
        elif error := task.exception():
            # It could not even begin, such as while Prefect's server is away; the next sweep tries again.
            get_run_logger().error("%s: remediation ended by an error", name, exc_info=error)
        else:
            get_run_logger().info("%s: remediation ended as %s: %s", name, task.result().name, task.result().message)


async def _see_out(watch: Watch) -> None:
    """Let what is being healed be healed to its end, and tell how each ended."""
    await asyncio.gather(*watch.remediations.values(), return_exceptions=True)
    _collect(watch)


def _keep_histories(watch: Watch) -> None:
    """Leave the last readings for the next run, beside the sweeps."""
    if watch.keeping is not None and watch.keeping.done():
        watch.keeping.result()
        watch.keeping = None
    if watch.keeping is None and time.monotonic() >= watch.keep_at:
        watch.keep_at = time.monotonic() + KEEP_EVERY_SECONDS
        watch.keeping = asyncio.create_task(_hand_over(watch))


async def _hand_over(watch: Watch) -> None:
    name = watch.live.inventory.name
    if not watch.is_joined:
        # The run before went on for a moment after this one had taken over.
        before = await watch.live.records.histories(name, watch.histories)
        watch.is_joined = True
        kept = watch.histories.keys() - watch.forgotten
        watch.histories |= {resource: joined(before.get(resource, {}), watch.histories[resource]) for resource in kept}
    await watch.live.records.save_histories(name, watch.histories)


def _publish(watch: Watch, found: Sweep) -> None:
    """Keep and show the status when it changed or is old, beside the sweeps and not before them."""
    states = dict(found.detection.held_back) | dict.fromkeys(watch.remediations, "remediation under way")
    for observation in found.observations:
        headline = observation.reading.values.get(watch.live.catalog.probes[observation.kind].headline)
        if isinstance(headline, int | float):
            watch.trends[observation.resource].append(float(headline))
    seen = {one.resource: (one.health, states.get(one.resource, "")) for one in found.observations}
    if watch.publication is not None:
        if not watch.publication.done():
            return
        watch.publication.result()
    due = watch.board.due(seen, seconds=time.monotonic(), moment=datetime.now(UTC), leads=watch.leads)
    if due == "nothing":
        return
    trends = {name: tuple(values) for name, values in watch.trends.items()}
    publishing = publish_status(watch.live, found.observations, trends, states, as_table=due == "show")
    watch.publication = asyncio.create_task(published(publishing))
