"""From a raw answer to a checked plan. Nothing unchecked is ever executed."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from blocks.schema import Rules
from tasks.core.declare import Tool, ToolArgs
from tasks.core.errors import PlanInvalid
from tasks.core.models import Attempt, Context, Decision, Plan, Step


def check_plan(raw: Mapping[str, Any], *, tools: Mapping[str, Tool], context: Context, rules: Rules) -> Plan:
    """The plan that `raw` holds, its arguments normalised by the tools' own models; PlanInvalid lists every problem."""
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        raise PlanInvalid(_sentences("plan", error)) from error
    problems: list[str] = []
    if (plan.decision is Decision.ACT) != bool(plan.steps):
        problems.append("steps: the decision `act` has at least one step, the other decisions have none")
    if len(plan.steps) > rules.max_steps:
        problems.append(f"steps: {len(plan.steps)} steps, at most {rules.max_steps} are allowed")
    steps: list[Step] = []
    for number, step in enumerate(plan.steps):
        tool = tools.get(step.tool)
        if tool is None or tool.service is not context.incident.kind:
            known = ", ".join(sorted(name for name, known in tools.items() if known.service is context.incident.kind))
            problems.append(f"steps.{number}.tool: {step.tool!r} is not among {known}")
            continue
        if step.target != context.incident.resource:
            problems.append(f"steps.{number}.target: {step.target!r} is not the incident's resource {context.incident.resource!r}")
        try:
            args = parse_args(tool, step)
        except ValidationError as error:
            problems.extend(_sentences(f"steps.{number}.args", error))
            continue
        steps.append(step.model_copy(update={"args": args.model_dump(mode="json")}))
    if problems:
        raise PlanInvalid(problems)
    return plan.model_copy(update={"steps": tuple(steps)})


def parse_args(tool: Tool, step: Step) -> ToolArgs:
    """The step's arguments as the tool's model; pydantic's ValidationError names the field."""
    return tool.args_model.model_validate_json(_json(step.args))


def already_tried(steps: tuple[Step, ...], attempts: tuple[Attempt, ...]) -> bool:
    """Whether the same calls were made by an earlier attempt, and are not known to have done their part."""
    wanted = [(step.tool, step.target, step.args) for step in steps]
    return any(
        [(step.tool, step.target, step.args) for step in attempt.plan.steps] == wanted for attempt in attempts if not attempt.exonerated
    )


def _json(args: Mapping[str, Any]) -> bytes:
    # By way of JSON: strict models take a list for a tuple and a text for an enum only there.
    return to_json(dict(args))


def _sentences(prefix: str, error: ValidationError) -> list[str]:
    return [f"{prefix}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors(include_input=False)]
