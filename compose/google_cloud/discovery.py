"""Google's discovery documents, as they ship with google-api-python-client: which methods there are, and how each is called."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

PLACEHOLDER = re.compile(r"\{(\+?)(\w+)\}")
DOCUMENTS = {
    "compute.googleapis.com": ("compute.v1",),
    "sqladmin.googleapis.com": ("sqladmin.v1",),
    "redis.googleapis.com": ("redis.v1",),
    "iamcredentials.googleapis.com": ("iamcredentials.v1",),
    "cloudresourcemanager.googleapis.com": ("cloudresourcemanager.v3", "cloudresourcemanager.v1"),
}
"""Host -> its documents."""


@dataclass(frozen=True)
class Method:
    """One method of one document."""

    document: "Document"
    described: dict[str, Any]

    @property
    def id(self) -> str:
        """As `compute.instances.start`."""
        return str(self.described["id"])

    @property
    def verb(self) -> str:
        """The HTTP method."""
        return str(self.described["httpMethod"])

    @property
    def parameters(self) -> dict[str, Schema]:
        """Its own parameters, in path and query."""
        return dict(self.described.get("parameters", {}))

    @property
    def request(self) -> Schema | None:
        """Schema of the body, None where it takes none."""
        return self.described.get("request")

    @property
    def response(self) -> Schema | None:
        """Schema of the answer."""
        return self.described.get("response")

    @cached_property
    def path(self) -> re.Pattern[str]:
        """Matches the whole path; a group a parameter."""

        def group(found: re.Match[str]) -> str:
            reserved, name = found.groups()
            pattern = str(self.parameters[name].get("pattern", ".+")).removeprefix("^").removesuffix("$") if reserved else "[^/]+"
            return f"(?P<{name}>{pattern})"

        template = f"/{self.document.content['servicePath']}{self.described['path']}"
        pieces, end = [], 0
        for found in PLACEHOLDER.finditer(template):
            pieces += [re.escape(template[end : found.start()]), group(found)]
            end = found.end()
        return re.compile("".join(pieces) + re.escape(template[end:]))

    def match(self, verb: str, raw_path: str) -> dict[str, str] | None:
        """The path's parameters, decoded; None where this is another method's path."""
        if verb != self.verb:
            return None
        found = self.path.fullmatch(raw_path)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


@dataclass(frozen=True)
class Document:
    """One API in one version."""

    content: dict[str, Any]

    @property
    def name(self) -> str:
        """As `compute`."""
        return str(self.content["name"])

    @property
    def schemas(self) -> dict[str, Schema]:
        """By their names."""
        schemas: dict[str, Schema] = self.content["schemas"]
        return schemas

    @property
    def parameters(self) -> dict[str, Schema]:
        """What every method takes in its query, such as `alt`."""
        parameters: dict[str, Schema] = self.content["parameters"]
        return parameters

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """All of them."""
        return tuple(Method(self, described) for described in _described(self.content))


def _described(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from part.get("methods", {}).values()
    for inner in part.get("resources", {}).values():
        yield from _described(inner)


@functools.cache
def load_document(name: str) -> Document:
    """One shipped document, such as `compute.v1`."""
    path = files("googleapiclient") / "discovery_cache" / "documents" / f"{name}.json"
    return Document(json.loads(path.read_text(encoding="utf-8")))


class Router:
    """Finds the method that a request means; those in `served` are tried first, since a document has a thousand."""

    def __init__(self, served: frozenset[str]) -> None:
        self._methods: dict[str, tuple[Method, ...]] = {}
        for host, names in DOCUMENTS.items():
            methods = [method for name in names for method in load_document(name).methods]
            self._methods[host] = tuple(sorted(methods, key=lambda method: method.id not in served))

    def methods(self, host: str) -> tuple[Method, ...]:
        """All that a host has."""
        return self._methods[host]

    def find(self, host: str, verb: str, raw_path: str) -> tuple[Method, dict[str, str]] | None:
        """The method and its path's parameters; None where the host has none such."""
        for method in self._methods.get(host, ()):
            parameters = method.match(verb, raw_path)
            if parameters is not None:
                return method, parameters
        return None
