"""The answer that is asked of a model: its JSON schema in the keywords that Gemini takes, and its strict reading.

What the schema can't say is put into descriptions and is checked afterwards, by the models that the schema was made from.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from blocks.model import Model
from blocks.schema import Risk
from tasks.core.errors import PlanInvalid
from tasks.core.models import Decision, ToolSummary

KEYWORDS = frozenset(
    {"type", "format", "description", "enum", "items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf"}
    | {"properties", "additionalProperties", "required", "propertyOrdering"}
)
FORMATS = frozenset({"date-time", "date", "time"})
LONGEST_TEXT = 4000
MOST_EVIDENCE = 20
DEEPEST = 30

# How a bound that has no keyword is said in words.
WORDS = {
    "pattern": "matches {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "default": "default: {}",
    "format": "format: {}",
}

FIELDS = {
    "evidence": "The readings, facts or log lines that this rests on, each with its name and value as given.",
    "reasoning": "How the evidence leads to the decision; at most five sentences.",
    "diagnosis": "The root cause, in one sentence.",
    "decision": "act: carry out the steps; nothing: leave it as it is; escalate: a person has to decide. All three are right at times.",
    "expected": "The reading that will show success, such as `memory_percent < 80`. Empty where nothing is done.",
}


class _Strict(Model):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AnswerStep(_Strict):
    """One step as a model gives it."""

    tool: str = Field(max_length=200)
    target: str | None = Field(None, max_length=200)
    args: dict[str, JsonValue] = Field(default_factory=dict)
    why: str = Field(min_length=1, max_length=LONGEST_TEXT)


class Answer(_Strict):
    """The whole answer as a model gives it; planner, usage and notes of a plan are not its to give."""

    decision: Decision
    diagnosis: str = Field(min_length=1, max_length=LONGEST_TEXT)
    evidence: tuple[str, ...] = Field((), max_length=MOST_EVIDENCE)
    reasoning: str = Field("", max_length=LONGEST_TEXT)
    expected: str = Field("", max_length=LONGEST_TEXT)
    steps: tuple[AnswerStep, ...] = ()


def read_answer(text: str, *, planner: str, resource: str) -> dict[str, Any]:
    """What a model answered, as the raw plan for `check_plan`; a step that names no target means the incident's resource.

    PlanInvalid lists what is wrong with its form, without repeating values.
    """
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise PlanInvalid([f"the answer is not JSON: {error}"]) from None
    try:
        answer = Answer.model_validate_json(text)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors(include_input=False)]
        raise PlanInvalid(problems[:10]) from None
    raw = answer.model_dump(exclude={"steps"})
    steps = [{**step.model_dump(), "target": resource if step.target is None else step.target} for step in answer.steps]
    return {**raw, "planner": planner, "steps": steps}


def answer_schema(tools: Iterable[ToolSummary], *, resource: str, max_steps: int) -> dict[str, Any]:
    """The schema of an answer whose steps are calls of these tools on that resource; read-only tools are no steps."""
    calls = [_call(tool, resource) for tool in tools if tool.risk is not Risk.READ_ONLY]
    return _answer({"anyOf": calls} if calls else {"type": "object"}, max_steps if calls else 0)


def loose_schema(max_steps: int) -> dict[str, Any]:
    """The same answer without a union over the tools, for services that find the exact one too complex. `args` is checked afterwards."""
    step = {
        "type": "object",
        "properties": {"tool": {"type": "string"}, "args": {"type": "object"}, "why": {"type": "string"}},
        "required": ["tool", "args", "why"],
    }
    return _answer(step, max_steps)


def _answer(step: dict[str, Any], max_steps: int) -> dict[str, Any]:
    def text(name: str) -> dict[str, Any]:
        return {"type": "string", "description": FIELDS[name]}

    # In the order of thought: what comes first is written first, and what follows can build on it.
    properties = {
        "evidence": {"type": "array", "items": {"type": "string"}, "maxItems": MOST_EVIDENCE, "description": FIELDS["evidence"]},
        "reasoning": text("reasoning"),
        "diagnosis": text("diagnosis"),
        "decision": {**text("decision"), "enum": [decision.value for decision in Decision]},
        "steps": {"type": "array", "items": step, "maxItems": max_steps, "description": "In order; none unless the decision is act."},
        "expected": text("expected"),
    }
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "propertyOrdering": names}


def _call(tool: ToolSummary, resource: str) -> dict[str, Any]:
    properties = {
        "tool": {"type": "string", "enum": [tool.name], "description": f"{tool.summary} Risk: {tool.risk}."},
        "target": {"type": "string", "enum": [resource]},
        "args": lower({name: value for name, value in tool.args_schema.items() if name != "description"}),
        "why": {"type": "string", "description": "Why this step, in one sentence."},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def lower(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema in Gemini's subset: references put in place, const as enum, oneOf as anyOf, other bounds in words.

    ValueError for a schema that contains itself.
    """
    return _lowered(schema, schema.get("$defs", {}), 0)


def _lowered(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> dict[str, Any]:
    if depth > DEEPEST:
        raise ValueError(f"schema: nested more than {DEEPEST} deep; arguments may not contain themselves")

    def below(part: Any) -> Any:
        return _lowered(part, definitions, depth + 1) if isinstance(part, Mapping) else part

    schema = _merged(schema, definitions)
    lowered: dict[str, Any] = {}
    for keyword, value in schema.items():
        match keyword:
            case "const":
                lowered["enum"] = [value]
            case "oneOf" | "anyOf":
                lowered["anyOf"] = [below(one) for one in value]
            case "properties":
                lowered["properties"] = {name: below(one) for name, one in value.items()}
            case "prefixItems":
                lowered["prefixItems"] = [below(one) for one in value]
            case "items" | "additionalProperties":
                lowered[keyword] = below(value)
            case "format" if value not in FORMATS:
                pass
            case _ if keyword in KEYWORDS:
                lowered[keyword] = value
    said = _in_words(schema)
    if said:
        lowered["description"] = f"{lowered['description']} ({said})" if lowered.get("description") else said
    return lowered


def _merged(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int = 0) -> Mapping[str, Any]:
    """The schema with what `$ref` and a lone `allOf` stand for; its own keywords go before."""
    if depth > DEEPEST:
        raise ValueError("schema: a reference leads to itself; arguments may not contain themselves")
    if "$ref" in schema:
        target = _merged(definitions[str(schema["$ref"]).rsplit("/", 1)[-1]], definitions, depth + 1)
        return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    if "allOf" in schema:
        parts = [_merged(part, definitions, depth + 1) for part in schema["allOf"]]
        whole = {name: value for part in parts for name, value in part.items()}
        return {**whole, **{name: value for name, value in schema.items() if name != "allOf"}}
    return schema


def _in_words(schema: Mapping[str, Any]) -> str:
    said = [
        words.format(schema[keyword])
        for keyword, words in WORDS.items()
        if schema.get(keyword) is not None and not (keyword == "format" and schema[keyword] in FORMATS)
    ]
    if schema.get("uniqueItems"):
        said.append("no item twice")
    return "; ".join(said)
