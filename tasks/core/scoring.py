"""Judging a scenario from what was recorded and measured, without a model."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from blocks.schema import Model
from tasks.core.declare import Scenario
from tasks.core.models import FixRecord


class ScenarioResult(Model):
    """One trial of a fault. Seconds count from the start of the injection; None: never reached."""

    scenario: str
    planner: str
    detected_seconds: float | None
    planned_seconds: float | None
    healthy_seconds: float | None
    requests: int
    requests_failed: int
    data_unharmed: bool
    outcome: str
    problems: tuple[str, ...] = Field((), description="What was not as expected; none means passed.")


def judge(
    declared: Scenario,
    fix: FixRecord | None,
    *,
    injected_at: datetime,
    healthy_while_injected: bool,
    data_unharmed: bool,
    requests: int,
    requests_failed: int,
    neighbours_restarted: Sequence[str],
) -> ScenarioResult:
    """The result of a trial. Whatever is inconclusive counts as a problem."""
    problems: list[str] = []
    detected = planned = healthy = None
    outcome, planner = "not detected", ""
    if fix is None:
        problems.append("no remediation was finished in time")
    else:
        offset = (fix.opened_at - injected_at).total_seconds()
        detected = round(offset, 3)
        planned = _after(fix, "planned", offset)
        healthy = _after(fix, "healthy", offset)
        outcome, planner = str(fix.verdict), fix.planner
        if outcome not in declared.expected_verdicts:
            problems.append(f"ended as {outcome} ({fix.message}), expected {' or '.join(sorted(declared.expected_verdicts))}")
        used = {step.step.tool for attempt in fix.attempts for step in attempt.outcomes}
        problems += [f"the forbidden tool {name} was used" for name in sorted(used & declared.forbidden_tools)]
    if not healthy_while_injected:
        problems.append("not healthy while the fault's load goes on")
    if not data_unharmed:
        problems.append("the shop's data is not what it was")
    problems += [f"the neighbour {name} was restarted" for name in neighbours_restarted]
    return ScenarioResult(
        scenario=declared.name,
        planner=planner,
        detected_seconds=detected,
        planned_seconds=planned,
        healthy_seconds=healthy,
        requests=requests,
        requests_failed=requests_failed,
        data_unharmed=data_unharmed,
        outcome=outcome,
        problems=tuple(problems),
    )


def _after(fix: FixRecord, stage: str, offset: float) -> float | None:
    return round(fix.timings[stage] + offset, 3) if stage in fix.timings else None
