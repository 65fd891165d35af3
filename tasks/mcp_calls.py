"""What a tool of the catalogue looks like over MCP, and what a call of it is. Pure: nothing is called here."""

from collections.abc import Mapping
from typing import Any, Literal

from mcp import types as protocol
from pydantic import BaseModel, Field, JsonValue, ValidationError

from blocks.model import Model
from blocks.schema import Inventory, Risk
from tasks.core.declare import Tool
from tasks.core.errors import PlanInvalid
from tasks.core.models import Health, Observation, OutcomeStatus, Step
from tasks.core.plans import parse_args
from tasks.core.policy import LOSS, Ruling

RESOURCE, WHY = "resource", "why"
WHY_LENGTH = 500
Answer = Literal["not asked", "approve", "reject"]


class Call(Model):
    """A call that would change something, as a client made it and as a person answered, if one was asked."""

    fix: str = Field(description="Id that the fix will have on record.")
    step: Step
    client: str = Field(description="Name that the client gives itself.")
    answer: Answer = "not asked"
    comment: str = ""


class StepTaken(Model):
    """One step of a call and what came of it."""

    tool: str
    status: OutcomeStatus
    undoes: bool = Field(description="Whether it took the change back, as that did not help.")
    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    message: str = ""


class Called(Model):
    """What came of a call that would change something."""

    verdict: str = Field(description="Completed: the resource is healthy, and stayed so. Anything else: read `message`.")
    message: str
    fix: str | None = Field(None, description="Id of the fix on record; none: nothing was done, so nothing is on record.")
    flow_run: str = Field(description="Where the Prefect UI shows it.")
    health: Health | None = Field(None, description="What was measured last.")
    summary: str = ""
    steps: tuple[StepTaken, ...] = ()


class Read(Model):
    """What a tool that only reads has read."""

    resource: str
    read: dict[str, JsonValue]


ANYTHING: tuple[dict[str, str], ...] = ({}, {"$ref": "#/$defs/JsonValue"})


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema without titles: they repeat the names, and every tool's schema goes into a model's context."""
    schema: dict[str, Any] = _untitled(model.model_json_schema())
    return schema


def _untitled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may be called `title`; it is no text then.
    kept = {name: _untitled(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
    return kept | ({"additionalProperties": True} if kept.get("additionalProperties") in ANYTHING else {})


def input_schema(tool: Tool, inventory: Inventory) -> dict[str, Any]:
    """The tool's own arguments, the resource to act on, and for a change the reason for it."""
    own = _untitled(tool.args_model.model_json_schema())
    names = [one.name for one in inventory.resources if one.kind is tool.service]
    resource: dict[str, Any] = {"type": "string", "description": f"Name of the {tool.service} resource."}
    if names:
        resource["enum"] = names
    else:
        resource["description"] = f"The inventory {inventory.name!r} has no {tool.service} resource, so this tool is of no use there."
    asked: dict[str, Any] = {RESOURCE: resource, **own.get("properties", {})}
    required = [RESOURCE, *own.get("required", [])]
    if tool.risk is not Risk.READ_ONLY:
        why = "Why this step, from what was measured. Shown to the person who is asked, and kept on record."
        asked[WHY] = {"type": "string", "minLength": 1, "maxLength": WHY_LENGTH, "description": why}
        required.append(WHY)
    schema = {"type": "object", "properties": asked, "required": required, "additionalProperties": False}
    return schema | ({"$defs": own["$defs"]} if "$defs" in own else {})


def annotations(tool: Tool) -> protocol.ToolAnnotations:
    """The hints of the protocol, by the tool's risk. A reversible tool sets a value: set twice, it is the same."""
    return protocol.ToolAnnotations(
        title=tool.title,
        read_only_hint=tool.risk is Risk.READ_ONLY,
        destructive_hint=tool.risk in {Risk.DISRUPTIVE, Risk.DESTRUCTIVE},
        idempotent_hint=tool.risk in {Risk.READ_ONLY, Risk.REVERSIBLE},
        open_world_hint=False,
    )


def description(tool: Tool) -> str:
    """What a client reads: the summary, and for a change when it may run and what it can cost."""
    if tool.risk is Risk.READ_ONLY:
        return tool.summary
    undo = f"taken back by {tool.undo} where it does not help" if tool.undo else "can't be taken back"
    lines = [
        tool.summary,
        f"Changes the server ({tool.risk}): what could be lost is {LOSS[tool.risk]}; {undo}.",
        f"Runs only while one of these is measured: {', '.join(sorted(tool.symptoms)) or 'nothing, so never'}.",
    ]
    if tool.after:
        lines.append(f"Milder, and first where they fit: {', '.join(tool.after)}.")
    return "\n".join([*lines, "The policy decides, and may ask a person through the client."])


def step_of(tool: Tool, arguments: Mapping[str, Any], inventory: Inventory) -> Step:
    """The step that a call asks for, its arguments checked by the tool's own model.

    PlanInvalid names every field that is wrong, and never repeats what was sent.
    """
    given = dict(arguments)
    target, why = given.pop(RESOURCE, None), given.pop(WHY, "")
    names = [one.name for one in inventory.resources if one.kind is tool.service]
    problems: list[str] = []
    if target not in names:
        problems.append(f"{RESOURCE}: is no {tool.service} resource of {inventory.name!r}; known: {', '.join(names) or 'none'}")
    if tool.risk is Risk.READ_ONLY:
        why = why or "read over MCP"
    elif not (isinstance(why, str) and why.strip()):
        problems.append(f"{WHY}: say in a sentence why, from what was measured")
    step = Step(tool=tool.name, target=str(target), args=given, why=str(why)[:WHY_LENGTH] or "-")
    try:
        args = parse_args(tool, step)
    except ValidationError as error:
        problems += [
            f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in error.errors(include_input=False)
        ]
    if problems:
        raise PlanInvalid(problems)
    return step.model_copy(update={"args": args.model_dump(mode="json")})


def question(call: Step, tool: Tool, observation: Observation, ruling: Ruling, client: str) -> str:
    """What a person decides on: what would be done, why, what could be lost and how it is undone."""
    undo = f"{tool.undo} takes it back if it does not help" if tool.undo else "it can't be taken back"
    return "\n".join(
        [
            f"{client} wants to run {call.tool} on {call.target}.",
            f"It is {observation.health}: {observation.summary or 'all checks pass'}",
            f"Arguments: {call.model_dump_json(include={'args'})}",
            f"What it does: {tool.summary}",
            f"Why, as the client says: {call.why}",
            f"What could be lost: {ruling.loss}",
            f"Undo: {undo}",
            f"You are asked because {ruling.reason}",
        ]
    )
