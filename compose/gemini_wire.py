"""Gemini's wire protocol as a server sees it: what arrives, and the answers that the service gives."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# The Developer API's path, and Vertex AI's with its project and location.
PATH = re.compile(
    r"^/(?P<version>v1|v1beta|v1beta1)/(?:projects/[^/]+/locations/[^/]+/publishers/google/)?models/(?P<model>[^/:]+):(?P<method>\w+)$"
)
CHARACTERS_A_TOKEN = 4
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBtb2RlbA=="
"""A thought signature, which a client has to send back with the call that it came with."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `number` counts from 0 since the server was started or told to forget."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model that is asked."""
        found = PATH.match(self.path.partition("?")[0])
        return found["model"] if found else ""

    @cached_property
    def text(self) -> str:
        """Everything that is said in it: the system's instruction and all turns."""
        contents = [lookup(self.body, "systemInstruction") or {}, *(lookup(self.body, "contents") or [])]
        return "\n".join(str(part["text"]) for content in contents for part in content.get("parts", ()) if "text" in part)

    @property
    def whole(self) -> str:
        """Path, headers and body in one text, in which a test can look for what must not be there."""
        return json.dumps([self.path, dict(self.headers), self.body], ensure_ascii=False)

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must have; none while the model may call functions."""
        found = lookup(lookup(self.body, "generationConfig") or {}, "responseJsonSchema")
        return found if isinstance(found, dict) else None

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions that may be called."""
        tools = lookup(self.body, "tools") or []
        return tuple(str(declared["name"]) for tool in tools for declared in lookup(tool, "functionDeclarations") or ())

    @property
    def function_responses(self) -> tuple[dict[str, Any], ...]:
        """What the calls of earlier turns gave."""
        parts = [part for content in lookup(self.body, "contents") or () for part in content.get("parts", ())]
        return tuple(found for part in parts if (found := lookup(part, "functionResponse")))

    @property
    def tokens(self) -> int:
        """Its size in tokens, estimated from its characters."""
        return math.ceil(len(json.dumps(self.body, ensure_ascii=False)) / CHARACTERS_A_TOKEN)


@dataclass(frozen=True)
class Answer:
    """What is sent back. A dict as body is sent as JSON, with the tokens that were used where it does not say."""

    body: dict[str, Any] | list[Any] | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    """Before the first byte; math.inf: until the client has gone."""
    byte_every_seconds: float | None = None
    """The body is sent byte by byte, each after that time."""
    reset_after_bytes: int | None = None
    """So much of head and body is sent, and then the connection is reset."""


Script = Callable[[Request], Answer]


def lookup(mapping: Mapping[str, Any], name: str) -> Any:
    """A field by its camel case name; clients send some in snake case."""
    snake = re.sub(r"([A-Z])", lambda letter: f"_{letter[1].lower()}", name)
    return mapping.get(name, mapping.get(snake))


def in_turn(*answers: Answer) -> Script:
    """A script that gives the answers one after the other, and the last one from then on."""
    return lambda request: answers[min(request.number, len(answers) - 1)]


def said(text: str, finish_reason: str = "STOP", /, **usage: int) -> Answer:
    """The model's answer as text; `usage` overrides what it used, for example promptTokenCount."""
    return _candidate({"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish_reason}, usage)


def structured(value: Any, finish_reason: str = "STOP", /, **usage: int) -> Answer:
    """The model's answer as JSON."""
    return said(json.dumps(value), finish_reason, **usage)


def calling(*calls: tuple[str, Mapping[str, Any]]) -> Answer:
    """The model calls functions."""
    parts = [{"functionCall": {"name": name, "args": dict(args)}, "thoughtSignature": SIGNATURE} for name, args in calls]
    return _candidate({"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}, {})


def silent(finish_reason: str, /, **usage: int) -> Answer:
    """A candidate without content: SAFETY, MAX_TOKENS eaten by thinking, MALFORMED_FUNCTION_CALL and the like."""
    return _candidate({"finishReason": finish_reason}, usage)


def blocked(reason: str) -> Answer:
    """The prompt is refused: no candidate, and nothing that a client raises for."""
    return Answer({"promptFeedback": {"blockReason": reason}})


def refusal(code: int, status: str, message: str, retry_seconds: float | None = None) -> Answer:
    """An error as Google's services word it; `retry_seconds` adds a google.rpc.RetryInfo."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if retry_seconds is not None:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_seconds:g}s"}]
    return Answer({"error": error}, status=code)


def _candidate(candidate: dict[str, Any], usage: Mapping[str, int]) -> Answer:
    body: dict[str, Any] = {"candidates": [{"index": 0, **candidate}]}
    return Answer({**body, "usageMetadata": dict(usage)} if usage else body)
