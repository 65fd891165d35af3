"""From observations to incidents: confirmation, deduplication, maintenance, and root causes before dependents."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import Field

from blocks.dependencies import reachable
from blocks.model import Model
from blocks.schema import Inventory, Resource
from tasks.core.models import Health, Incident, Observation

CONFIRMATIONS = 2
"""Breaches in a row that open an incident."""


class Track(Model):
    """What is remembered of a resource between sweeps."""

    health: Health
    since: datetime
    breaches: int = Field(0, ge=0, description="Consecutive observations that were DEGRADED or FAILED.")
    healthy_at: datetime | None = Field(None, description="When it was last measured as healthy.")
    predicted: bool = Field(False, description="Whether all that is wrong is predicted, and nothing measured.")


class Escalation(Model):
    """That a remediation of a resource ended without having healed it."""

    closed_at: datetime
    symptoms: frozenset[str]
    predicted: bool = Field(False, description="Whether it was of what was only predicted.")


class Detection(Model):
    """What a sweep amounts to."""

    tracks: dict[str, Track]
    incidents: tuple[Incident, ...] = ()
    suspects: tuple[str, ...] = Field((), description="Resources to measure once more at once: a breach not yet confirmed.")
    held_back: dict[str, str] = Field(default_factory=dict, description="Resource -> why its breach opens no incident.")


def advance(track: Track | None, observation: Observation) -> Track:
    """The track after one more observation. UNKNOWN says nothing about the server and leaves the count of breaches as it is."""
    health = observation.health
    healthy_at = observation.taken_at if health is Health.HEALTHY else track.healthy_at if track else None
    since = track.since if track and health is track.health else observation.taken_at
    known = track.breaches if track else 0
    breaches = known if health is Health.UNKNOWN else known + 1 if health.is_breach else 0
    return Track(health=health, since=since, breaches=breaches, healthy_at=healthy_at, predicted=observation.predicted)


def detect(
    inventory: Inventory,
    tracks: Mapping[str, Track],
    observations: Sequence[Observation],
    *,
    busy: frozenset[str],
    now: datetime,
    escalations: Mapping[str, Escalation] | None = None,
    confirmations: int = CONFIRMATIONS,
) -> Detection:
    """Advance every observed resource's track and open the incidents that follow.

    `busy` names the resources that a remediation is under way for, `escalations` those that a person was called for a short time ago.
    An incident opens after `confirmations` breaches in a row, unless the resource is busy, under maintenance, left to a person, or
    depends on a resource that is itself in breach or busy. What is only predicted of a resource holds nothing back.
    """
    after = dict(tracks)
    for observation in observations:
        after[observation.resource] = advance(tracks.get(observation.resource), observation)
    unwell = {name for name, track in after.items() if track.health.is_breach and not track.predicted} | busy
    incidents: list[Incident] = []
    suspects: list[str] = []
    held_back: dict[str, str] = {}
    breaches = [observation for observation in observations if observation.health.is_breach]
    # Made once: an outage may be of thousands at a time.
    known = {resource.name: resource for resource in inventory.resources} if breaches else {}
    graph = {resource.name: resource.depends_on for resource in known.values()}
    for observation in breaches:
        name = observation.resource
        reason = _reason_to_hold(known[name], reachable(name, graph) & unwell, is_busy=name in busy, now=now)
        escalation = (escalations or {}).get(name)
        if not reason and escalation is not None and _is_left_to_a_person(escalation, after[name], observation):
            reason = f"left to a person since {escalation.closed_at:%H:%M:%SZ}: a remediation ended without having healed it"
        if reason:
            held_back[name] = reason
        elif after[name].breaches < confirmations:
            suspects.append(name)
        else:
            incidents.append(open_incident(inventory.name, observation, now))
    return Detection(tracks=after, incidents=tuple(incidents), suspects=tuple(suspects), held_back=held_back)


def _reason_to_hold(resource: Resource, roots: set[str], *, is_busy: bool, now: datetime) -> str:
    if is_busy:
        return "a remediation is under way"
    if resource.maintenance is not None and now < resource.maintenance.until:
        return f"under maintenance until {resource.maintenance.until.isoformat()} {resource.maintenance.reason}".rstrip()
    if roots:
        return f"depends on {', '.join(sorted(roots))}, which comes first"
    return ""


def _is_left_to_a_person(escalation: Escalation, track: Track, observation: Observation) -> bool:
    """Until it has been healthy again, or something else is wrong with it."""
    recovered = track.healthy_at is not None and track.healthy_at > escalation.closed_at
    has_come = escalation.predicted and not observation.predicted
    return not recovered and not has_come and {finding.symptom for finding in observation.findings} <= escalation.symptoms


def open_incident(inventory: str, observation: Observation, now: datetime) -> Incident:
    """The incident that an observation in breach makes."""
    return Incident(
        id=f"{observation.resource}-{now:%Y%m%dT%H%M%S%f}",
        inventory=inventory,
        resource=observation.resource,
        kind=observation.kind,
        health=observation.health,
        symptoms=tuple(finding.symptom for finding in observation.findings),
        summary=observation.summary,
        opened_at=now,
        observation=observation,
    )
