"""Judging a scenario from what was recorded and measured, without a model."""

from collections.abc import Collection, Sequence
from datetime import datetime

from pydantic import Field

from blocks.model import Model
from tasks.core.declare import Ending, Scenario
from tasks.core.models import FixRecord, OutcomeStatus, Verdict

UNDONE = {OutcomeStatus.NOT_APPLICABLE, OutcomeStatus.UNREACHABLE, OutcomeStatus.DENIED, OutcomeStatus.DRY_RUN}


class ScenarioResult(Model):
    """One trial of a fault. Seconds count from the start of the injection; None: never reached."""

    scenario: str
    runtime: str = Field("", description="What ran the resource: process or container.")
    planner: str
    expected: str
    outcome: str = Field(description="How it ended; see `Ending`.")
    as_expected: bool
    detected_seconds: float | None
    planned_seconds: float | None
    healthy_seconds: float | None
    requests: int
    requests_failed: int
    data_unharmed: bool
    tools: tuple[str, ...] = Field((), description="What was run, in order.")
    retries: int = Field(0, description="Plans after the first.")
    message: str = ""
    problems: tuple[str, ...] = Field(
        (), description="What went wrong; none means passed. To call a person where it could have been healed is safe, and no problem."
    )


class Evidence(Model):
    """What was found apart from monitor and tools."""

    harm: tuple[str, ...] = Field((), description="What of the shop's data is not what it was.")
    requests: int
    requests_failed: int
    changed_neighbours: tuple[str, ...] = ()
    relapse: str = Field("", description="What was not well in the time after the healing, while the fault's cause went on.")
    unhealed: str = Field("", description="What the scenario's own check found.")


def ending_of(fixes: Sequence[FixRecord], waiting: Collection[str] = ()) -> Ending:
    """How the remediations of one resource ended together, from the newest to the oldest; `waiting`: ids of those that ask a person."""
    if not fixes:
        return Ending.LEFT_ALONE
    if any(fix.id in waiting or fix.verdict is Verdict.ESCALATED for fix in fixes):
        return Ending.ESCALATED
    if any(fix.verdict in {Verdict.FAILED, Verdict.ABANDONED} for fix in fixes) or fixes[0].verdict is None:
        return Ending.FAILED
    if all(fix.verdict is Verdict.NO_ACTION_NEEDED for fix in fixes):
        return Ending.LEFT_ALONE
    return Ending.HEALED


def judge(
    declared: Scenario,
    targets: Collection[str],
    fixes: Sequence[FixRecord],
    evidence: Evidence,
    *,
    injected_at: datetime,
    waiting: Collection[str] = (),
) -> ScenarioResult:
    """The result of a trial from every remediation since its injection, newest first. Whatever is inconclusive counts as a problem.

    `targets` are the resource that was hurt and what it runs in, which may be where it is healed.
    """
    of_target = [fix for fix in fixes if fix.incident.resource in targets]
    outcome = ending_of(of_target, waiting)
    if outcome is Ending.LEFT_ALONE and declared.symptoms and not of_target:
        outcome = Ending.NOT_DETECTED
    first = of_target[-1] if of_target else None
    problems = [*_ending_problems(declared, outcome, fixes, waiting), *_harm(declared, {*targets, *declared.also}, fixes, evidence)]
    if Ending.HEALED in {outcome, declared.expects} and outcome is not Ending.ESCALATED:
        problems += filter(None, (evidence.relapse, evidence.unhealed))
    return ScenarioResult(
        scenario=declared.name,
        planner=first.planner if first else "",
        expected=declared.expects,
        outcome=outcome,
        as_expected=outcome is declared.expects,
        detected_seconds=None if first is None else round((first.opened_at - injected_at).total_seconds(), 3),
        planned_seconds=_reached(first, "planned", injected_at),
        healthy_seconds=_reached(first, "healthy", injected_at),
        requests=evidence.requests,
        requests_failed=evidence.requests_failed,
        data_unharmed=not evidence.harm,
        tools=tuple(tool for fix in reversed(fixes) for tool in _tools(fix)),
        retries=max(0, len(first.attempts) - 1) if first else 0,
        message=first.message if first else "",
        problems=tuple(problems),
    )


def _ending_problems(declared: Scenario, outcome: Ending, fixes: Sequence[FixRecord], waiting: Collection[str]) -> list[str]:
    told = "; ".join(f"{fix.incident.resource}: {fix.verdict or 'open'} {fix.message}" for fix in fixes) or "no remediation"
    acceptable = {declared.expects} if declared.expects is Ending.LEFT_ALONE else {declared.expects, Ending.ESCALATED}
    problems = [] if outcome in acceptable else [f"it ended as {outcome} ({told}), expected {declared.expects}"]
    if outcome is Ending.HEALED:
        for name in sorted(declared.also):
            ending = ending_of([fix for fix in fixes if fix.incident.resource == name], waiting)
            problems += [f"{name} ended as {ending} ({told})"] if ending is Ending.FAILED else []
    return problems


def _harm(declared: Scenario, hurt: set[str], fixes: Sequence[FixRecord], evidence: Evidence) -> list[str]:
    used = {tool for fix in fixes for tool in _tools(fix)}
    problems = [f"the forbidden tool {name} was used" for name in sorted(used & declared.forbidden_tools)]
    problems += [
        f"{outcome.step.tool} changed {outcome.step.target}, which was well"
        for fix in fixes
        if fix.incident.resource not in hurt
        for attempt in fix.attempts
        for outcome in attempt.outcomes
        if outcome.changed_something
    ]
    problems += [f"the neighbour {name}" for name in evidence.changed_neighbours]
    return [*problems, *(f"the shop's data is not what it was: {told}" for told in evidence.harm)]


def _tools(fix: FixRecord) -> list[str]:
    return [one.step.tool for attempt in fix.attempts for one in attempt.outcomes if one.status not in UNDONE]


def _reached(fix: FixRecord | None, stage: str, injected_at: datetime) -> float | None:
    if fix is None or stage not in fix.timings:
        return None
    return round(fix.timings[stage] + (fix.opened_at - injected_at).total_seconds(), 3)
