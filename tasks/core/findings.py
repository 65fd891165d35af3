"""Findings, said shortly."""

from tasks.core.models import Finding, Health


def failed(symptom: str, summary: str) -> Finding:
    """What keeps the service from serving."""
    return Finding(symptom=symptom, health=Health.FAILED, summary=summary)


def degraded(symptom: str, summary: str) -> Finding:
    """What the service still serves with."""
    return Finding(symptom=symptom, health=Health.DEGRADED, summary=summary)
