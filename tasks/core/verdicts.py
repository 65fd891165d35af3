"""What observations, plans and attempts amount to."""

from collections.abc import Collection, Sequence
from datetime import datetime

from blocks.schema import Resource
from tasks.core.models import Attempt, Change, Decision, Finding, Health, Observation, OutcomeStatus, Plan, Reading, Trend, Verdict

SEVERITY = {Health.HEALTHY: 0, Health.UNKNOWN: 1, Health.DEGRADED: 2, Health.FAILED: 3}
STEADY_SHARE = 0.02
BACK_SHARE = 0.05


def worst(findings: Sequence[Finding]) -> Health:
    """The health that follows from the findings; none means HEALTHY."""
    return max((finding.health for finding in findings), key=SEVERITY.__getitem__, default=Health.HEALTHY)


def observe(resource: Resource, reading: Reading, findings: tuple[Finding, ...], *, taken_at: datetime, seconds: float) -> Observation:
    """A probe's reading and findings as one observation; the worst finding comes first."""
    ordered = tuple(sorted(findings, key=lambda finding: -SEVERITY[finding.health]))
    return Observation(
        resource=resource.name,
        kind=resource.kind,
        health=worst(ordered),
        findings=ordered,
        reading=reading,
        summary="; ".join(finding.summary for finding in ordered),
        taken_at=taken_at,
        seconds=seconds,
    )


def unknown(resource: Resource, why: str, *, taken_at: datetime, seconds: float) -> Observation:
    """The observation of a probe that could not measure."""
    return Observation(
        resource=resource.name,
        kind=resource.kind,
        health=Health.UNKNOWN,
        summary=f"probe: {why}",
        taken_at=taken_at,
        seconds=seconds,
    )


def healed(attempt: Attempt) -> bool:
    """Whether an attempt counts as a fix: measured healthy afterwards. Inconclusive is failure."""
    return attempt.after is not None and attempt.after.health is Health.HEALTHY


def lessened(before: Observation | None, after: Observation, remedied: Collection[str]) -> bool:
    """Whether steps did what they are for, although something else is still wrong: taking them back would bring the first trouble back.

    Every symptom that showed before and that they are remedies for (`remedied`) is gone, and no other one has come.
    """
    if before is None or after.health is Health.UNKNOWN:
        return False
    was, now = ({finding.symptom for finding in one.findings} for one in (before, after))
    meant = was & set(remedied)
    return bool(meant) and not (meant & now) and now < was


def exonerated(before: Observation | None, after: Observation | None, restored: Observation | None, remedied: Collection[str]) -> bool:
    """Whether steps that were taken back had done their part, and had no part in what came meanwhile.

    What they are remedies for was gone after them and is back without them; what had come stayed although they were taken back.
    """
    if before is None or after is None or restored is None or Health.UNKNOWN in {after.health, restored.health}:
        return False
    was, with_them, without = ({finding.symptom for finding in one.findings} for one in (before, after, restored))
    meant, come = was & set(remedied), with_them - was
    return bool(meant) and not (meant & with_them) and bool(meant & without) and bool(come) and come <= without


def not_back(made: Change, undone: Change) -> list[str]:
    """What a change altered and its undo did not bring back, one text each; figures count as back within 5 %, as load moves them."""
    differing: list[str] = []
    for name, old in made.before.items():
        now = undone.after.get(name)
        if old == made.after.get(name) or old == now:
            continue
        both_figures = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, now))
        if not both_figures or abs(float(str(old)) - float(str(now))) > BACK_SHARE * max(abs(float(str(old))), 1):
            differing.append(f"{name} was {old}, is {now}")
    return differing


def conclude(attempts: Sequence[Attempt], last_plan: Plan | None) -> tuple[Verdict, str]:
    """The verdict of a remediation and the sentence that goes with it."""
    if attempts and healed(attempts[-1]):
        plan = attempts[-1].plan
        lasting = [attempt for attempt in attempts[:-1] if attempt.kept] + [attempts[-1]]
        done = [outcome for attempt in lasting for outcome in attempt.outcomes if outcome.status is OutcomeStatus.DONE]
        steps = ", then ".join(outcome.step.tool for outcome in done) or "no step"
        failed = len(attempts) - len(lasting)
        retries = f" after {failed} failed attempt(s)" if failed else ""
        if not any(outcome.changed_something for attempt in attempts for outcome in attempt.outcomes):
            return Verdict.NO_ACTION_NEEDED, "healthy again by itself; nothing was changed"
        return Verdict.COMPLETED, f"{plan.diagnosis}: healed by {steps}{retries}"
    if last_plan is not None and last_plan.decision is Decision.NOTHING:
        return Verdict.NO_ACTION_NEEDED, last_plan.diagnosis
    if last_plan is not None and last_plan.decision is Decision.ESCALATE:
        return Verdict.ESCALATED, f"a person is needed: {last_plan.diagnosis}"
    if attempts:
        after = attempts[-1].after
        state = after.summary if after and after.summary else "no conclusive reading"
        return Verdict.ESCALATED, f"a person is needed: {len(attempts)} attempt(s) did not heal it; last seen: {state}"
    return Verdict.ESCALATED, "a person is needed: no plan could be made"


def trend(values: Sequence[float]) -> Trend:
    """Direction of the last readings: steady within 2 % of their mean."""
    if len(values) < 2:
        return "steady"
    change = values[-1] - values[0]
    scale = max(abs(sum(values) / len(values)), 1e-9)
    if abs(change) / scale <= STEADY_SHARE:
        return "steady"
    return "rising" if change > 0 else "falling"
