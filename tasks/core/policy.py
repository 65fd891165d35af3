"""What may be done: every step is authorised here, outside whoever planned it, from what was measured and what is on record."""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import TypeGuard

from pydantic import Field, JsonValue

from blocks.model import Model
from blocks.schema import Autonomy, Resource, Risk, Role, Rules
from tasks.core.declare import Growth, Tool
from tasks.core.models import Attempt, Incident, Observation, OutcomeStatus, Step

LOSS = {
    Risk.READ_ONLY: "nothing",
    Risk.REVERSIBLE: "nothing: the value before is kept",
    Risk.DISRUPTIVE: "connections, and the work under way on them",
    Risk.DESTRUCTIVE: "data of the resource",
}

RISKS = list(LOSS)
"""The harmless first."""


class Action(StrEnum):
    """The policy's word on a step."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Ruling(Model):
    """The word and its reason, and what a person who is asked has to know."""

    action: Action
    reason: str
    risk: Risk
    loss: str = Field(description="What could be lost.")
    undo: str = Field(description="How the step is taken back; empty: it changes nothing.")
    cost: str = Field("", description="What it costs from then on; empty: nothing.")


class Standing(Model):
    """What the policy knows beside the plan: switches, and what was done before."""

    now: datetime
    stopped: str = Field("", description="Reason of the kill switch; empty: not stopped.")
    autonomy: Autonomy | None = Field(None, description="Of this run alone; it can only lower what the rules say.")
    fixes_last_hour: int = Field(0, ge=0, description="Other remediations of this resource.")
    fixes_last_hour_overall: int = Field(0, ge=0, description="Other remediations of the whole inventory.")
    seconds_since_last_use: dict[str, float] = Field(
        default_factory=dict, description="Tool -> seconds since another remediation changed this resource with it."
    )
    tried: frozenset[str] = Field(frozenset(), description="Tools that this remediation has used already.")


Word = tuple[Action, str]
NOT_TRIED = {OutcomeStatus.UNREACHABLE, OutcomeStatus.DENIED, OutcomeStatus.DRY_RUN}
"""Nothing was sent, so nothing is known of the tool's effect."""


def tried_in(attempts: tuple[Attempt, ...]) -> frozenset[str]:
    """The tools that a remediation has used; one that the server's state gave no occasion for counts too.

    What was taken back although it had done its part does not count: it comes first again.
    """
    outcomes = [outcome for attempt in attempts if not attempt.exonerated for outcome in attempt.outcomes]
    return frozenset(outcome.step.tool for outcome in outcomes if not outcome.undoes and outcome.status not in NOT_TRIED)


def authorise(
    step: Step,
    tool: Tool,
    *,
    tools: Mapping[str, Tool],
    incident: Incident,
    resource: Resource,
    observation: Observation,
    rules: Rules,
    standing: Standing,
    approved: bool = False,
) -> Ruling:
    """Rule on one step of a plan for an incident. The first rule that speaks is the one that counts.

    DENY: never, whoever asks. ASK: a person decides, and where one has (`approved`) it becomes ALLOW. `tools` holds, by name, the
    milder ones that the tool comes after.
    """
    milder = [tools[name] for name in tool.after]
    action, reason = _word(step, tool, milder, incident, resource, observation, rules, standing)
    if action is Action.ASK and approved:
        action, reason = Action.ALLOW, f"approved by a person; asked because {reason}"
    undo = "" if tool.risk is Risk.READ_ONLY else f"taken back by {tool.undo}" if tool.undo else "can't be taken back"
    risk = risk_in(tool, observation)
    return Ruling(action=action, reason=reason, risk=risk, loss=loss_of(tool, observation), undo=undo, cost=tool.cost)


def risk_in(tool: Tool, observation: Observation) -> Risk:
    """The risk of a tool where this was measured: its own, or a lower one."""
    if tool.risk_of is None:
        return tool.risk
    return min(tool.risk_of(observation), tool.risk, key=RISKS.index)


def loss_of(tool: Tool, observation: Observation) -> str:
    """What could be lost by a tool where this was measured."""
    return tool.loss or LOSS[risk_in(tool, observation)]


def _word(
    step: Step,
    tool: Tool,
    milder: list[Tool],
    incident: Incident,
    resource: Resource,
    observation: Observation,
    rules: Rules,
    standing: Standing,
) -> Word:
    misdirected = _misdirected(step, tool, incident, resource, observation)
    if misdirected:
        return Action.DENY, misdirected
    if tool.risk is Risk.READ_ONLY:
        return Action.ALLOW, "reads only"
    risk = risk_in(tool, observation)
    autonomies = _autonomies(risk, resource, rules, standing)
    for reason in _denials(step, tool, resource, observation, standing, autonomies):
        return Action.DENY, reason
    on_cache = " on a cache, whose data may be dropped" if risk is Risk.DESTRUCTIVE else ""
    how = "predicted" if _is_only_predicted(tool, observation) else "measured"
    action, reason = Action.ALLOW, f"{risk}{on_cache}, and {_remedied(tool, observation)[0]} is {how}"
    for asked in _questions(step, tool, milder, resource, observation, rules, standing, autonomies):
        action, reason = Action.ASK, asked
        break
    if Autonomy.PROPOSE in autonomies:
        told = f"autonomy is propose ({autonomies[Autonomy.PROPOSE]}): shown, not executed; otherwise: {action}, {reason}"
        return Action.DENY, told
    return action, reason


def _misdirected(step: Step, tool: Tool, incident: Incident, resource: Resource, observation: Observation) -> str:
    """Why the step has nothing to do with the incident, if so."""
    if step.target != incident.resource or resource.name != incident.resource:
        return f"the target {step.target!r} is not the incident's resource {incident.resource!r}"
    if tool.name != step.tool or tool.service is not resource.kind:
        return f"{step.tool} is a tool for {tool.service}, the resource is a {resource.kind}"
    if observation.resource != resource.name:
        return f"what was measured is {observation.resource!r}, not the incident's resource {resource.name!r}"
    return ""


def _denials(
    step: Step, tool: Tool, resource: Resource, observation: Observation, standing: Standing, autonomies: dict[Autonomy, str]
) -> Iterator[str]:
    if standing.stopped:
        yield f"the kill switch is on: {standing.stopped}"
    if resource.maintenance is not None and standing.now < resource.maintenance.until:
        yield f"under maintenance until {resource.maintenance.until.isoformat()} {resource.maintenance.reason}".rstrip()
    if not _remedied(tool, observation):
        measured = ", ".join(finding.symptom for finding in observation.findings) or "nothing wrong"
        yield f"measured is {measured}; {tool.name} needs {' or '.join(sorted(tool.symptoms)) or 'a symptom, and names none'}"
    if is_premature(tool, observation):
        yield f"{_remedied(tool, observation)[0]} is only predicted: a step that is {tool.risk} waits until it is measured"
    yield from _shrinks(step, tool, resource, observation)
    yield from _steps_down(step, tool, resource, observation)
    if Autonomy.OBSERVE in autonomies:
        yield f"autonomy is observe ({autonomies[Autonomy.OBSERVE]}): nothing is changed"


def is_premature(tool: Tool, observation: Observation) -> bool:
    """Whether a step would be felt for the sake of something that is only predicted, and may never come."""
    return tool.risk not in {Risk.READ_ONLY, Risk.REVERSIBLE} and _is_only_predicted(tool, observation)


def _is_only_predicted(tool: Tool, observation: Observation) -> bool:
    remedied = [finding for finding in observation.findings if finding.symptom in tool.symptoms]
    return bool(remedied) and all(finding.predicted for finding in remedied)


def _shrinks(step: Step, tool: Tool, resource: Resource, observation: Observation) -> Iterator[str]:
    """A remediation raises a capacity, above what is measured and up to its limit; to lower it is no remedy for being full."""
    for growth in _grown(step, tool):
        wanted, now = step.args.get(growth.argument), observation.reading.values.get(growth.measured)
        if not _is_number(wanted) or not _is_number(now):
            yield f"{growth.argument} {wanted} can't be compared: {growth.measured} is measured as {now}"
        elif wanted <= now:
            yield f"{growth.argument} {wanted:g} is not above {growth.measured}, which is {now:g}: a remediation only raises it"
        else:
            most = _limit(growth, resource)
            if most is not None and wanted > most:
                yield f"{growth.argument} {wanted:g} is above limits.{growth.limit}, which is {most}"


def _steps_down(step: Step, tool: Tool, resource: Resource, observation: Observation) -> Iterator[str]:
    """As `_shrinks`, for a size by name: above the present one, among those that the inventory declares in rising order."""
    if tool.ladder is None:
        return
    wanted, now = step.args.get(tool.ladder.argument), observation.reading.values.get(tool.ladder.measured)
    declared: tuple[str, ...] = getattr(resource.limits, tool.ladder.limit) or ()
    for name, said in ((wanted, "wanted"), (now, "present")):
        if name not in declared:
            yield f"the {said} {tool.ladder.argument} {name} is not among limits.{tool.ladder.limit}: {', '.join(declared) or 'none'}"
            return
    if declared.index(str(wanted)) <= declared.index(str(now)):
        yield f"{tool.ladder.argument} {wanted} does not stand above {now} in limits.{tool.ladder.limit}: a remediation only raises it"


def _grown(step: Step, tool: Tool) -> list[Growth]:
    """The capacities that a step changes; one that a tool with several leaves out stays as it is."""
    given = [growth for growth in tool.growth if step.args.get(growth.argument) is not None]
    return given or list(tool.growth)


def _questions(
    step: Step,
    tool: Tool,
    milder: list[Tool],
    resource: Resource,
    observation: Observation,
    rules: Rules,
    standing: Standing,
    autonomies: dict[Autonomy, str],
) -> Iterator[str]:
    hit = "" if tool.aim is None else tool.aim(step.args, observation)
    if hit:
        yield f"{tool.name} would hit {hit}"
    if tool.asks:
        yield tool.asks
    if risk_in(tool, observation) is Risk.DESTRUCTIVE and resource.role is Role.STORE:
        yield "destructive on a store: only a person may decide"
    for other in milder:
        if other.name not in standing.tried and _comes_first(other, resource, observation):
            yield f"{other.name} is milder, fits what is measured, and was not tried: it comes first"
    for growth in _grown(step, tool):
        if _limit(growth, resource) is None:
            yield f"the inventory sets no limits.{growth.limit}: how far it may be raised is for a person to say"
    if standing.fixes_last_hour >= rules.max_fixes_per_hour:
        yield f"{standing.fixes_last_hour} other remediations of it in the last hour reach max_fixes_per_hour, {rules.max_fixes_per_hour}"
    if standing.fixes_last_hour_overall >= rules.max_fixes_per_hour_overall:
        yield (
            f"{standing.fixes_last_hour_overall} other remediations in the last hour reach max_fixes_per_hour_overall, "
            f"{rules.max_fixes_per_hour_overall}"
        )
    seconds = standing.seconds_since_last_use.get(tool.name)
    if tool.risk is not Risk.REVERSIBLE and seconds is not None and seconds < rules.cooldown_seconds:
        yield f"{tool.name} was used {seconds:.0f} s ago, within the cool-down of {rules.cooldown_seconds:g} s"
    if Autonomy.APPROVE in autonomies:
        yield f"autonomy is approve ({autonomies[Autonomy.APPROVE]}): every change asks a person"


def _comes_first(milder: Tool, resource: Resource, observation: Observation) -> bool:
    """Whether the milder tool could heal what is measured without a person."""
    if not _remedied(milder, observation) or (milder.fits is not None and not milder.fits(observation)):
        return False
    return not milder.growth or any(_suffices(growth, resource, observation) for growth in milder.growth)


def _suffices(growth: Growth, resource: Resource, observation: Observation) -> bool:
    """Whether the capacity, raised as far as it may be, would be enough for what is in use."""
    values, most = observation.reading.values, _limit(growth, resource)
    now, share = values.get(growth.measured), values.get(growth.share)
    if most is None or not _is_number(now) or not _is_number(share):
        return False
    threshold: float = getattr(resource.thresholds, growth.share)
    return now < most and share * now / most < threshold


def _autonomies(risk: Risk, resource: Resource, rules: Rules, standing: Standing) -> dict[Autonomy, str]:
    """Each autonomy that applies, with what says so. All are heard, so the most cautious counts."""
    said = {
        "of this run": standing.autonomy,
        f"rules.autonomy_of_risk.{risk}": rules.autonomy_of_risk.get(risk),
        "of the resource" if resource.autonomy else "rules.autonomy": resource.autonomy or rules.autonomy,
    }
    return {autonomy: source for source, autonomy in said.items() if autonomy is not None}


def _remedied(tool: Tool, observation: Observation) -> list[str]:
    """The measured symptoms that the tool is a remedy for."""
    return [finding.symptom for finding in observation.findings if finding.symptom in tool.symptoms]


def _limit(growth: Growth, resource: Resource) -> float | None:
    stated: float | None = getattr(resource.limits, growth.limit)
    return growth.unset_limit if stated is None else stated


def _is_number(value: JsonValue) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
