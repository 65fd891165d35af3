"""What pydantic's errors mean to whoever wrote the file. Pure."""

import difflib
from typing import Any

from pydantic_core import ErrorDetails

from blocks.lines import Location
from blocks.model import Model
from blocks.schema import Kind

RUNTIME_TYPES = {"process", "container"}


def within(detail: ErrorDetails) -> Location:
    """The place of an error without what the file has no level for: keys' errors, and the member of a union."""
    parts = detail["loc"]
    is_member = [before == "runtime" and part in RUNTIME_TYPES for before, part in zip(("", *parts), parts, strict=False)]
    return tuple(part for part, left_out in zip(parts, is_member, strict=True) if part != "[key]" and not left_out)


def explained(detail: ErrorDetails, model: type[Model], also: tuple[str, ...]) -> str:
    """What is wrong, with the remedy; `also`: fields that a file has beside those of the model."""
    location = within(detail)
    match detail["type"]:
        case "extra_forbidden":
            known = [*_fields(model.model_json_schema(), location[:-1]), *(also if len(location) == 1 else ())]
            close = difflib.get_close_matches(str(location[-1]), known, n=1)
            return f"no such field; did you mean {close[0]!r}?" if close else f"no such field; known: {', '.join(known)}"
        case "missing":
            return "is missing; add it"
        case "enum" if location[-1] == "kind":
            return f"no such kind {detail['input']!r}; known kinds: {', '.join(Kind)}"
        case "string_pattern_mismatch" if location[-1] == "engine":
            return "write unix:///path or tcp://host:port, the address of the engine's API"
        case "string_pattern_mismatch" if location[-1] == "container":
            return "write the container's name"
        case "string_pattern_mismatch":
            return "write lower-case letters, digits and dashes, beginning with a letter, at most 63"
        case _:
            return detail["msg"].removeprefix("Value error, ")


def _fields(schema: dict[str, Any], location: Location) -> list[str]:
    """The fields that a JSON schema knows at a location."""
    found: list[str] = []
    parts = [schema]
    for step in (*location, None):
        parts = [option for part in parts for option in _options(part, schema)]
        if step is None:
            found = [name for part in parts for name in part.get("properties", {})]
        elif isinstance(step, int):
            parts = [part["items"] for part in parts if "items" in part]
        else:
            # A step that is no property names the member of a union; the schema has no level for it.
            parts = [part["properties"][step] for part in parts if step in part.get("properties", {})] or parts
    return found


def _options(part: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The part itself, or what its references and unions stand for."""
    if "$ref" in part:
        return _options(schema["$defs"][part["$ref"].rsplit("/", 1)[-1]], schema)
    members = [*part.get("anyOf", ()), *part.get("oneOf", ())]
    return [option for member in members for option in _options(member, schema)] if members else [part]
