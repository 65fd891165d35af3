"""The schema that a model gets, and the strict reading of what it answers."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from blocks.schema import Kind, Resource, Rules
from tasks.catalog import load_catalog, summarise
from tasks.core.answer_schema import FORMATS, KEYWORDS, answer_schema, loose_schema, lower, read_answer
from tasks.core.errors import PlanInvalid
from tasks.core.models import Context
from tasks.core.plans import check_plan, parse_args
from tests.incidents import READINGS, context_of
from tests.tasks.unwell import incident_of, observation_of

TOOLS = load_catalog().tools
CACHE = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1")
UNWELL = observation_of(CACHE, "memory_high")
CONTEXT = Context(incident=incident_of(UNWELL), resource=CACHE, observation=UNWELL)


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and every schema within it; names of properties are none."""
    assert isinstance(schema, dict), schema
    yield schema
    below = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    below += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for one in below:
        yield from schemas_in(one)


def assert_fits_gemini(schema: dict[str, Any]) -> None:
    for one in schemas_in(schema):
        assert one.keys() <= KEYWORDS
        assert one.get("format") in {None, *FORMATS}


@pytest.mark.parametrize("kind", Kind)
def test_every_tool_of_a_kind_can_be_asked_for(kind: Kind) -> None:
    assert_fits_gemini(answer_schema([summarise(tool) for tool in load_catalog().tools_for(kind).values()], resource="r", max_steps=4))
    assert_fits_gemini(loose_schema(4))


@pytest.mark.parametrize("incident", sorted(READINGS))
def test_what_is_asked_for_an_incident_is_small(incident: str) -> None:
    schema = answer_schema(load_catalog().offered(context_of(incident).observation), resource="r", max_steps=4)
    assert_fits_gemini(schema)
    assert len(json.dumps(schema)) < 6000


class Inner(BaseModel):
    """Inside."""

    at: datetime
    code: Literal[7] = 7


class One(BaseModel):
    """One of two."""

    kind: Literal["one"]
    text: str = Field(pattern="^a+$", min_length=2, max_length=9, description="Some text.")


class Two(BaseModel):
    """The other."""

    kind: Literal["two"]
    number: Annotated[float, Field(gt=0, lt=10, multiple_of=0.5)]


class Everything(BaseModel):
    """What pydantic can say and Gemini can't hear."""

    inner: Inner
    either: One | Two = Field(discriminator="kind")
    pair: tuple[int, str]
    unique: set[int]
    names: dict[str, Inner] = {}
    maybe: Inner | None = None
    pattern: str = "a property with the name of a keyword"


def test_what_has_no_keyword_is_said_in_words() -> None:
    schema = lower(Everything.model_json_schema())
    assert_fits_gemini(schema)
    properties = schema["properties"]
    assert "pattern" in properties
    assert properties["inner"]["properties"]["code"]["enum"] == [7]
    one, two = properties["either"]["anyOf"]
    assert one["properties"]["text"]["description"] == "Some text. (matches ^a+$; at least 2 characters; at most 9 characters)"
    assert two["properties"]["number"]["description"] == "greater than 0; less than 10; a multiple of 0.5"
    assert properties["unique"]["description"] == "no item twice"
    assert properties["maybe"]["anyOf"][0]["properties"]["at"]["format"] == "date-time"
    assert "maybe" not in schema["required"]


class Endless(BaseModel):
    """Contains itself."""

    again: "Endless | None" = None


def test_a_schema_that_contains_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="may not contain themselves"):
        lower(Endless.model_json_schema())


_leaves = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "number", "boolean", "null"])},
    optional={
        "title": st.text(max_size=5),
        "description": st.text(max_size=5),
        "const": st.integers() | st.text(max_size=3),
        "default": st.none() | st.integers() | st.text(max_size=3),
        "pattern": st.just("^x$"),
        "format": st.sampled_from(["date-time", "uri", "email"]),
        "minLength": st.integers(0, 9),
        "exclusiveMinimum": st.integers(),
        "examples": st.lists(st.integers(), max_size=2),
        "readOnly": st.booleans(),
        "$ref": st.just("#/$defs/leaf"),
    },
)
_nested = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3), "discriminator": st.just({"propertyName": "kind"})}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "uniqueItems": st.booleans(), "minItems": st.integers(0, 3)}),
        st.fixed_dictionaries({"type": st.just("array"), "prefixItems": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.text(max_size=8), inner, max_size=3),
                "additionalProperties": st.booleans() | inner,
                "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
            }
        ),
    ),
    max_leaves=8,
)


@given(_nested)
def test_no_keyword_survives_that_gemini_does_not_know(schema: dict[str, Any]) -> None:
    assert_fits_gemini(lower({**schema, "$defs": {"leaf": {"type": "string", "maxLength": 3}}}))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=4,
)
_numbers = st.integers(-10, 2_000_000) | st.floats(-10, 2_000_000)


@st.composite
def _calls(draw: st.DrawFn) -> dict[str, Any]:
    """Calls of any tool with arguments that are often nearly right."""
    name = draw(st.sampled_from(sorted(TOOLS)))
    fields = TOOLS[name].args_model.model_fields
    likely: dict[str, st.SearchStrategy[Any]] = {}
    for field, info in fields.items():
        literals = [value for value in get_args(info.annotation) if isinstance(value, str)]
        likely[field] = (st.sampled_from(literals) if literals else _numbers | st.text(max_size=70)) | _values
    args = draw(st.fixed_dictionaries({}, optional=likely))
    extra = draw(st.dictionaries(st.text(max_size=5), _values, max_size=1)) if draw(st.integers(0, 4)) == 0 else {}
    target = draw(st.sampled_from([None, "cache", "cache", "cache", "app"]))
    return {"tool": name, "args": {**args, **extra}, "why": draw(st.text(max_size=3)), "target": target}


@given(steps=st.lists(_calls(), max_size=6), decision=st.sampled_from(["act", "nothing", "escalate"]))
def test_what_is_accepted_is_what_the_tools_accept(steps: list[dict[str, Any]], decision: str) -> None:
    rules = Rules(max_steps=4)
    text = json.dumps({"decision": decision, "diagnosis": "d", "steps": steps})
    try:
        plan = check_plan(read_answer(text, planner="p", resource="cache"), tools=TOOLS, context=CONTEXT, rules=rules)
    except PlanInvalid as error:
        assert error.problems
        return
    assert bool(plan.steps) == (decision == "act")
    assert len(plan.steps) == len(steps) <= rules.max_steps
    for asked, planned in zip(steps, plan.steps, strict=True):
        tool = TOOLS[planned.tool]
        assert tool.service is Kind.REDIS
        assert planned.target == "cache"
        assert asked["target"] in {None, "cache"}
        # Once more by the tool's own model, from what the model said: it says the same.
        assert tool.args_model.model_validate_json(json.dumps(asked["args"])) == parse_args(tool, planned)


@given(st.text(max_size=200) | _values.map(json.dumps))
def test_any_text_is_an_answer_or_a_list_of_problems(text: str) -> None:
    try:
        raw = read_answer(text, planner="p", resource="cache")
    except PlanInvalid as error:
        assert error.problems
    else:
        assert raw["planner"] == "p"
