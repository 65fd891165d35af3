"""Measuring: every resource of an inventory at once, each under its own deadline."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.schema import Resource
from tasks.connecting import Live, current
from tasks.core.detection import Detection, Escalation, Track, detect
from tasks.core.errors import ProbeBroken
from tasks.core.models import Health, Observation
from tasks.core.trends import History, remembered, with_predictions
from tasks.core.verdicts import observe, unknown
from tasks.redacting import redacted_observation

CONFIRM_AFTER_SECONDS = 0.1
DEADLINE_SLACK_SECONDS = 0.5
STARTED_TOGETHER = 16
AHEAD_SECONDS = 0.01
PROMPT_SECONDS = 0.02
TICK_SECONDS = 0.05
STALL_SECONDS = 0.25
LOOKS = 4
LINES_TOLD = 200
PATIENT_TURNS = 10
"""So many turns of the event loop are waited for a prompt one; then it is somebody else who keeps the loop busy."""


@dataclass(frozen=True)
class Known:
    """What a sweep builds on: what the ones before found, who is being healed, and what was left to a person."""

    tracks: Mapping[str, Track] = field(default_factory=dict)
    histories: Mapping[str, History] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    escalations: Mapping[str, Escalation] = field(default_factory=dict)
    is_told: bool = False
    """Whether the run before, which this one relieves, has told how things stand: then only what changes is worth a task run."""


@dataclass(frozen=True)
class Sweep:
    """The latest observation of every resource, and what they amount to."""

    observations: tuple[Observation, ...]
    detection: Detection
    histories: dict[str, History]
    seconds: float


async def probe_resource(live: Live, resource: Resource) -> Observation:
    """One observation, without secrets; a probe that is broken or never ends gives UNKNOWN, which says nothing about the server."""
    return redacted_observation(live.redactor, await _measure(live, resource))


async def _measure(live: Live, resource: Resource) -> Observation:
    probe = live.catalog.probes[resource.kind]
    taken_at = datetime.now(UTC)
    started = time.monotonic()
    try:
        client = live.probe_client(resource)  # to make one takes none of the server's time
        async with asyncio.timeout(probe.timeout_seconds + DEADLINE_SLACK_SECONDS):
            reading = await probe.measure(client, resource)
    except TimeoutError:
        why = f"not finished within {probe.timeout_seconds + DEADLINE_SLACK_SECONDS:g} s"
        return unknown(resource, why, taken_at=taken_at, seconds=time.monotonic() - started)
    except ProbeBroken as error:
        return unknown(resource, str(error), taken_at=taken_at, seconds=time.monotonic() - started)
    findings = probe.judge(reading, resource)
    return observe(resource, reading, findings, taken_at=taken_at, seconds=time.monotonic() - started)


async def probe_all(live: Live, resources: Sequence[Resource]) -> list[Observation]:
    """Observations in the resources' order, measured concurrently; one hanging server delays no other."""
    taken_at = datetime.now(UTC)
    stalls = Stalls()
    noticing = asyncio.create_task(stalls.notice())
    started: list[asyncio.Task[Observation]] = []
    try:
        for resource in resources:
            if started and len(started) % STARTED_TOGETHER == 0:
                await asyncio.wait(started[-STARTED_TOGETHER:], timeout=AHEAD_SECONDS)
                await _prompt_turn()
            started.append(asyncio.create_task(_probe_fairly(live, resource, stalls)))
        results = await asyncio.gather(*started, return_exceptions=True)
    finally:
        for task in (noticing, *started):
            task.cancel()
    observations: list[Observation] = []
    for resource, result in zip(resources, results, strict=True):
        if isinstance(result, Observation):
            observations.append(result)
        elif isinstance(result, Exception):
            get_run_logger().error("%s: the probe itself failed", resource.name, exc_info=result)
            observations.append(unknown(resource, f"{type(result).__name__} in the probe, see the log", taken_at=taken_at, seconds=0))
        else:
            raise result  # cancellation and the like
    return observations


class Stalls:
    """For how long this process could not do anything, be it that the machine is busy or the event loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def notice(self) -> None:
        """Notice them, until cancelled."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            late_seconds = time.monotonic() - asked - TICK_SECONDS
            if late_seconds > TICK_SECONDS:
                self.seconds += late_seconds


async def _probe_fairly(live: Live, resource: Resource, stalls: Stalls) -> Observation:
    """An observation; what seems wrong while this process stood still is looked at again, for a reply may have waited here all the time."""
    for _ in range(LOOKS - 1):
        before = stalls.seconds
        seen = await probe_resource(live, resource)
        if seen.health is Health.HEALTHY or stalls.seconds - before < STALL_SECONDS:
            return seen
    return await probe_resource(live, resource)


async def _prompt_turn() -> None:
    """Wait until the event loop comes round quickly.

    Thousands of probes started at once would wait for each other longer than their deadlines, and healthy servers would seem to be silent.
    What only waits for a server costs the loop nothing, so servers that hang hold nobody up.
    """
    for _ in range(PATIENT_TURNS):
        asked = time.monotonic()
        await asyncio.sleep(0)
        if time.monotonic() - asked < PROMPT_SECONDS:
            return


async def sweep_once(live: Live, known: Known, only: Collection[str] = ()) -> Sweep:
    """Measure everything, or only some resources; measure suspects once more, and detect."""
    started = time.monotonic()
    named = {one.name: one for one in live.inventory.resources if not only or one.name in only}
    resources = list(named.values())
    measured = await probe_all(live, resources)
    histories = dict(known.histories)
    for resource, observation in zip(resources, measured, strict=True):
        trends = live.catalog.probes[resource.kind].trends
        if trends:
            histories[resource.name] = remembered(
                histories.get(resource.name, {}), observation, trends, resource.thresholds.horizon_seconds
            )

    def looked_ahead(seen: Sequence[Observation]) -> list[Observation]:
        return [
            with_predictions(one, live.catalog.probes[one.kind].trends, histories.get(one.resource, {}), named[one.resource])
            for one in seen
        ]

    def found(tracks: Mapping[str, Track], seen: Sequence[Observation]) -> Detection:
        now = datetime.now(UTC)
        return detect(live.inventory, tracks, seen, busy=known.busy, now=now, escalations=known.escalations)

    observations = {one.resource: one for one in looked_ahead(measured)}
    detection = found(known.tracks, list(observations.values()))
    if detection.suspects:
        await asyncio.sleep(CONFIRM_AFTER_SECONDS)
        again = looked_ahead(await probe_all(live, [named[name] for name in detection.suspects]))
        observations.update({one.resource: one for one in again})
        confirmed = found(detection.tracks, again)
        detection = confirmed.model_copy(
            update={
                "incidents": detection.incidents + confirmed.incidents,
                "held_back": detection.held_back | confirmed.held_back,
            }
        )
    return Sweep(tuple(observations.values()), detection, histories, time.monotonic() - started)


async def sweep(number: int, known: Known, only: Collection[str] = ()) -> Sweep:
    """One sweep over the whole inventory, or only some of it. Where monitoring begins, and where a change is found, a task run tells of it.

    The others leave a line in the log at most: a task run takes 20 KB, which at a sweep each 15 s would be more than 100 MB a day.
    """
    found = await sweep_once(current(), known, only)
    first, changes = [*_first_line(known, found)], [*_changes(known, found)]
    if changes or (first and not known.is_told):
        await tell_sweep(number, [*first, *changes])
    elif first:
        get_run_logger().info("%s", first[0])
    return found


def _first_line(known: Known, found: Sweep) -> Iterator[str]:
    if not any(observation.resource in known.tracks for observation in found.observations):
        healthy = sum(observation.health is Health.HEALTHY for observation in found.observations)
        yield f"{healthy} of {len(found.observations)} resources are healthy"


def _changes(known: Known, found: Sweep) -> Iterator[str]:
    for observation in found.observations:
        before = known.tracks.get(observation.resource)
        # What is well from the start is not worth a line each.
        known_as = Health.HEALTHY if before is None else before.health
        if known_as is observation.health:
            continue
        yield f"{observation.resource} is {observation.health} {observation.summary}"
        why = found.detection.held_back.get(observation.resource)
        if why:
            yield f"{observation.resource}: no incident: {why}"


@task(name="sweep", task_run_name="sweep {number}", cache_policy=NO_CACHE, persist_result=False)
async def tell_sweep(number: int, lines: Sequence[str]) -> None:
    """What a sweep found, as a task run with a log: one, however many resources."""
    logger = get_run_logger()
    for line in lines[:LINES_TOLD]:
        logger.info("%s", line)
    if len(lines) > LINES_TOLD:
        logger.info("and %d more; the table of the status has all", len(lines) - LINES_TOLD)


@task(name="probe", task_run_name="probe {resource}", cache_policy=NO_CACHE, persist_result=False)
async def probe(resource: str) -> Observation:
    """One resource, once."""
    live = current()
    return (await probe_all(live, [live.inventory.resource(resource)]))[0]
