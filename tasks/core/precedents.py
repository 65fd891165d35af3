"""Which fixes of the past are like an incident, and whether what they did lasted. Pure.

They are told to planners as data. Nothing here is known to the policy: what a record claims can change no ruling.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from blocks.model import Model
from tasks.core.models import FixRecord, Health, Incident, Verdict

RELAPSE = timedelta(hours=24)
"""What comes back within that time after it was healed, had not been healed for good."""


class Trace(Model):
    """As much of a closed fix as it takes to say how alike it is."""

    id: str
    resource: str
    symptoms: frozenset[str]
    opened_at: datetime
    closed_at: datetime
    verdict: Verdict


class Precedent(Model):
    """A past fix that is like an incident."""

    fix: FixRecord
    of_this_resource: bool
    shared: tuple[str, ...]
    """The symptoms that both have."""
    all_alike: bool
    """Whether neither has a symptom more."""
    relapsed_after_seconds: float | None = None
    """None: it did not come back, as far as is on record."""

    @property
    def is_validated(self) -> bool:
        """Whether it was measured to be healthy afterwards, and stayed so while that was looked at."""
        return self.fix.verdict is Verdict.COMPLETED and self.fix.after is not None and self.fix.after.health is Health.HEALTHY


def most_alike(traces: Iterable[Trace], incident: Incident, limit: int) -> list[Trace]:
    """The fixes of this kind that are most like the incident, the most alike first and of equals the newest.

    Symptoms count most, then the resource. One of another resource without a symptom in common is not like it at all.
    """
    scored = [(_likeness(trace, incident), trace) for trace in traces if trace.id != incident.id]
    alike = [(score, trace) for score, trace in scored if score > 0]
    return [trace for _, trace in sorted(alike, key=lambda one: (one[0], one[1].opened_at, one[1].id), reverse=True)][:limit]


def _likeness(trace: Trace, incident: Incident) -> float:
    symptoms = frozenset(incident.symptoms)
    either = symptoms | trace.symptoms
    overlap = len(symptoms & trace.symptoms) / len(either) if either else 0
    return 2 * overlap + (trace.resource == incident.resource)


def relapsed_after(healed: Trace, later: Iterable[Trace], incident: Incident) -> float | None:
    """Seconds until one of the same symptoms was back on the resource after a fix that had healed it; None: it was not within a day."""
    if healed.verdict is not Verdict.COMPLETED:
        return None
    seen = [(one.resource, one.symptoms, one.opened_at) for one in later]
    seen.append((incident.resource, frozenset(incident.symptoms), incident.opened_at))
    gaps = [
        opened_at - healed.closed_at
        for resource, symptoms, opened_at in seen
        if resource == healed.resource and symptoms & healed.symptoms and opened_at >= healed.closed_at
    ]
    soonest = min(gaps, default=None)
    return soonest.total_seconds() if soonest is not None and soonest <= RELAPSE else None


def precedent_of(fix: FixRecord, trace: Trace, traces: Sequence[Trace], incident: Incident) -> Precedent:
    """A past fix beside the incident."""
    return Precedent(
        fix=fix,
        of_this_resource=trace.resource == incident.resource,
        shared=tuple(sorted(trace.symptoms & frozenset(incident.symptoms))),
        all_alike=trace.symptoms == frozenset(incident.symptoms),
        relapsed_after_seconds=relapsed_after(trace, traces, incident),
    )


def told(precedent: Precedent) -> str:
    """A past fix in one line: what is known of it first, and then what it says of itself."""
    fix = precedent.fix
    tools = ", ".join(outcome.step.tool for attempt in fix.attempts for outcome in attempt.outcomes) or "no step"
    where = "this resource" if precedent.of_this_resource else f"another {fix.incident.kind}, {fix.incident.resource}"
    alike = "same symptoms" if precedent.all_alike else f"also {_list(precedent.shared)}" if precedent.shared else "other symptoms"
    known = f"{fix.opened_at:%Y-%m-%d %H:%M:%SZ} {where}, {alike}, {_fate(precedent)}"
    return f"{known}: {fix.incident.summary} -> {tools}: {fix.verdict or 'open'}, {fix.message}"


def _fate(precedent: Precedent) -> str:
    if precedent.relapsed_after_seconds is not None:
        return f"came back after {span(precedent.relapsed_after_seconds)}"
    if precedent.is_validated:
        return "measured healthy, no relapse seen"
    if precedent.fix.verdict is Verdict.NO_ACTION_NEEDED:
        return "nothing was done"
    return "not measured healthy"


def span(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _list(names: Collection[str]) -> str:
    return ", ".join(names)
