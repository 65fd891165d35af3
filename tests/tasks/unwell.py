"""A resource that is unwell, as its probe and the detection would say: what most decisions are tried on."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from blocks.schema import Resource
from tasks.core.models import Finding, Health, Incident, Observation, Reading

START = datetime(2026, 1, 1, tzinfo=UTC)
FULL: Mapping[str, JsonValue] = {"memory_percent": 97.0}


def observation_of(
    resource: Resource,
    *symptoms: str,
    health: Health = Health.DEGRADED,
    values: Mapping[str, JsonValue] = FULL,
    summary: str = "memory at 97 %",
    taken_at: datetime = START,
) -> Observation:
    """What was measured; each symptom is a finding with the summary as its own."""
    findings = tuple(Finding(symptom=symptom, health=health, summary=summary) for symptom in symptoms)
    return Observation(
        resource=resource.name,
        kind=resource.kind,
        health=health,
        findings=findings,
        reading=Reading(values=dict(values)),
        summary=summary if findings else "",
        taken_at=taken_at,
    )


def incident_of(observation: Observation, *, inventory: str = "unit", summary: str = "memory at 97 %") -> Incident:
    """The incident that the observation opens."""
    return Incident(
        id=f"{observation.resource}-1",
        inventory=inventory,
        resource=observation.resource,
        kind=observation.kind,
        health=observation.health,
        symptoms=tuple(finding.symptom for finding in observation.findings),
        summary=summary,
        opened_at=observation.taken_at,
        observation=observation,
    )
