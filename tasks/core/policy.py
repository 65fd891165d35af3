"""What may be done: every step is authorised here, outside whoever planned it."""

from enum import StrEnum

from blocks.schema import Autonomy, Model, Resource, Risk, Role, Rules
from tasks.core.declare import Tool
from tasks.core.models import Incident, Step


class Action(StrEnum):
    """The policy's word on a step."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Ruling(Model):
    """The word and its reason."""

    action: Action
    reason: str


def authorise(step: Step, tool: Tool, *, incident: Incident, resource: Resource, rules: Rules, fixes_last_hour: int) -> Ruling:
    """Rule on one step of a plan for an incident.

    DENY: never, whoever asks. ASK: a person decides. The first rule that speaks is the one that counts.
    """
    if step.target != incident.resource or resource.name != incident.resource:
        return Ruling(action=Action.DENY, reason=f"the target {step.target!r} is not the incident's resource {incident.resource!r}")
    if tool.service is not resource.kind:
        return Ruling(action=Action.DENY, reason=f"{tool.name} is a tool for {tool.service}, the resource is a {resource.kind}")
    if tool.risk is Risk.READ_ONLY:
        return Ruling(action=Action.ALLOW, reason="reads only")
    autonomy = resource.autonomy or rules.autonomy
    if autonomy is Autonomy.OBSERVE:
        return Ruling(action=Action.DENY, reason="autonomy is observe: nothing is changed")
    if autonomy is Autonomy.PROPOSE:
        return Ruling(action=Action.DENY, reason="autonomy is propose: the plan is shown and not executed")
    if autonomy is Autonomy.APPROVE:
        return Ruling(action=Action.ASK, reason="autonomy is approve: every change asks a person")
    if fixes_last_hour >= rules.max_fixes_per_hour:
        return Ruling(
            action=Action.ASK,
            reason=f"{fixes_last_hour} remediations in the last hour reach the cap of {rules.max_fixes_per_hour}",
        )
    if tool.risk is Risk.DESTRUCTIVE:
        if resource.role is Role.CACHE:
            return Ruling(action=Action.ALLOW, reason="destructive, and the resource is declared a cache: its data may be dropped")
        return Ruling(action=Action.ASK, reason="destructive on a store: only a person may decide")
    return Ruling(action=Action.ALLOW, reason=f"{tool.risk}, within the rules")
