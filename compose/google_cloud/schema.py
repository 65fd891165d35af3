"""Closed-world checks against the schemas of a discovery document: what a document doesn't know is a violation."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compose.google_cloud.discovery import Method, Schema

INTEGERS = {
    "int32": range(-(2**31), 2**31),
    "uint32": range(2**32),
    "int64": range(-(2**63), 2**63),
    "uint64": range(2**64),
}
DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")
FIELD_MASK = re.compile(r"[a-z]\w*(\.\w+)*(,[a-z]\w*(\.\w+)*)*", re.ASCII)
OUTPUT_ONLY = ("[Output Only]", "Output only.")
EXTRA_QUERY = {"$alt", "$unique"}
"""System parameters that Google's servers take and the documents don't name."""


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        return False
    return True


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


TEXTS: dict[str, Callable[[str], bool]] = {
    "byte": _is_base64,
    "google-datetime": _is_time,
    "date-time": _is_time,
    "google-duration": lambda text: DURATION.fullmatch(text) is not None,
    "google-fieldmask": lambda text: FIELD_MASK.fullmatch(text) is not None,
}


@dataclass(frozen=True)
class Checker:
    """Checks of one method's exchange. `sending`: a client's body, in which fields of answers alone have no place."""

    method: Method
    sending: bool
    numeric_enums: bool = False

    def body(self, schema: Schema | None, value: object) -> list[str]:
        """What is wrong with a body, each with the path of its field; nothing where the schema holds."""
        if schema is None:
            return [] if value is None else ["body: this method takes none"]
        if value is None:
            return ["body: missing"]
        return list(self._problems(schema, value, "body"))

    def parameters(self, path: Mapping[str, str], query: Mapping[str, list[str]]) -> list[str]:
        """What is wrong with the parameters of path and query."""
        known = {**self.method.document.parameters, **self.method.parameters}
        given = {**{name: [value] for name, value in path.items()}, **query}
        found = [f"parameter {name}: missing" for name, schema in known.items() if schema.get("required") and not any(given.get(name, ()))]
        for name, values in given.items():
            schema = known.get(name)
            if schema is None:
                if name not in EXTRA_QUERY:
                    found.append(f"parameter {name}: the method has none such")
                continue
            if len(values) > 1 and not schema.get("repeated"):
                found.append(f"parameter {name}: given {len(values)} times")
            for value in values:
                found.extend(self._problems(schema, _typed(schema, value), f"parameter {name}"))
        return found

    def _problems(self, schema: Schema, value: object, where: str) -> Iterator[str]:
        if "$ref" in schema:
            schema = self.method.document.schemas[schema["$ref"]]
        match schema.get("type"):
            case "any":
                return
            case "object":
                yield from self._object_problems(schema, value, where)
            case "array":
                if not isinstance(value, list):
                    yield f"{where}: {_kind(value)}, not an array"
                    return
                for at, item in enumerate(value):
                    yield from self._problems(schema["items"], item, f"{where}[{at}]")
            case "boolean":
                if not isinstance(value, bool):
                    yield f"{where}: {_kind(value)}, not a boolean"
            case "integer":
                yield from _integer_problems(schema, value, where)
            case "number":
                if isinstance(value, bool) or not isinstance(value, int | float):
                    yield f"{where}: {_kind(value)}, not a number"
            case _:
                yield from self._text_problems(schema, value, where)

    def _object_problems(self, schema: Schema, value: object, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where}: {_kind(value)}, not an object"
            return
        properties: dict[str, Schema] = schema.get("properties", {})
        others: Schema | None = schema.get("additionalProperties")
        for name, field in value.items():
            inner = f"{where}.{name}"
            if name in properties:
                if self.sending and field is None:
                    continue  # Google takes null for a field that is not set
                if self.sending and _is_output_only(properties[name]):
                    yield f"{inner}: only answers hold this field"
                yield from self._problems(properties[name], field, inner)
            elif others is not None:
                yield from self._problems(others, field, inner)
            else:
                yield f"{inner}: there is no such field"
        if self.sending:
            for name, known in properties.items():
                if self.method.id in known.get("annotations", {}).get("required", ()) and name not in value:
                    yield f"{where}.{name}: missing"
        yield from self._any_problems(value, where)

    def _any_problems(self, value: dict[str, Any], where: str) -> Iterator[str]:
        """A message that names its own type, as in an operation's `response`, is checked as that."""
        typed = value.get("@type")
        if isinstance(typed, str):
            name = typed.rsplit(".", 1)[-1]
            if name in self.method.document.schemas:
                yield from self._problems({"$ref": name}, {key: field for key, field in value.items() if key != "@type"}, where)

    def _text_problems(self, schema: Schema, value: object, where: str) -> Iterator[str]:
        if "enum" in schema and self.numeric_enums and isinstance(value, int) and not isinstance(value, bool):
            return
        if not isinstance(value, str):
            yield f"{where}: {_kind(value)}, not a string"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is none of its values"
        form = schema.get("format")
        if form in INTEGERS and (not re.fullmatch(r"-?\d+", value, re.ASCII) or int(value) not in INTEGERS[form]):
            yield f"{where}: {value!r} is no {form}"
        if form in TEXTS and not TEXTS[form](value):
            yield f"{where}: {value!r} is no {form}"
        if "pattern" in schema and re.fullmatch(schema["pattern"], value) is None:
            yield f"{where}: {value!r} does not match {schema['pattern']}"


def _integer_problems(schema: Schema, value: object, where: str) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield f"{where}: {_kind(value)}, not an integer"
        return
    if value not in INTEGERS.get(schema.get("format", ""), INTEGERS["int64"]):
        yield f"{where}: {value} is no {schema.get('format')}"
    if ("minimum" in schema and value < int(schema["minimum"])) or ("maximum" in schema and value > int(schema["maximum"])):
        yield f"{where}: {value} is out of its bounds"


def _is_output_only(schema: Schema) -> bool:
    return bool(schema.get("readOnly")) or str(schema.get("description", "")).startswith(OUTPUT_ONLY)


def _typed(schema: Schema, text: str) -> object:
    """A parameter's text as the type that its schema names, or the text where it is none."""
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if schema.get("type") in {"integer", "number"}:
        try:
            return int(text) if schema["type"] == "integer" else float(text)
        except ValueError:
            return text
    return text


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
