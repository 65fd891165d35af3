"""What can be wrong with a request to Gemini or with its answer, in words that hold no secret."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from google.genai import types

REPEATABLE = frozenset({429, 500, 502, 503, 504})
BAD_REQUEST = 400
MOST_WORDS = 300
DURATION = re.compile(r"(\d+(?:\.\d+)?)s?")


@dataclass(frozen=True)
class Failure:
    """Why a request gave nothing."""

    text: str
    status: int | None = None
    repeatable: bool = False
    retry_seconds: float | None = None
    """How long the service asks to wait."""
    is_request_fault: bool = False
    """The service finds the request itself wrong, such as a schema that is too complex for it."""


def failure_of(error: Exception, scrub: Callable[[str], str]) -> Failure | None:
    """The failure that an error of the SDK, of the transport or of the credentials stands for; None for any other error."""
    from google.auth.exceptions import GoogleAuthError
    from google.genai.errors import APIError

    match error:
        case APIError():
            return _refusal(error, scrub)
        case httpx.TimeoutException():
            return Failure(f"no answer in time ({type(error).__name__})", repeatable=True)
        case httpx.TransportError():
            words = scrub(str(error))
            return Failure(f"connection failed: {type(error).__name__}{': ' if words else ''}{words}", repeatable=True)
        case httpx.HTTPError() | httpx.InvalidURL():
            return Failure(f"request failed: {type(error).__name__}")
        case GoogleAuthError():
            return Failure(scrub(f"credentials of Google Cloud are refused or missing: {error}"))
        case ValueError() | RecursionError():
            # JSONDecodeError (RecursionError where it is nested too deep), pydantic's ValidationError and the SDK's own: the body is
            # not what the API answers.
            return Failure(f"the answer is not one of the API's ({type(error).__name__})")
    return None


def _refusal(error: Any, scrub: Callable[[str], str]) -> Failure:
    details = _details(error.details)
    is_bad_key = any(detail.get("reason") == "API_KEY_INVALID" for detail in details)
    words = "the API key is not valid" if is_bad_key else scrub(f"{error.status or ''} {error.message or ''}")
    headers = getattr(error.response, "headers", None) or {}
    return Failure(
        text=f"{error.code} {words}".strip(),
        status=error.code,
        repeatable=error.code in REPEATABLE,
        retry_seconds=_retry_seconds(details, headers.get("retry-after")),
        is_request_fault=error.code == BAD_REQUEST and not is_bad_key,
    )


def _details(body: Any) -> list[Mapping[str, Any]]:
    error = body.get("error", body) if isinstance(body, Mapping) else {}
    details = error.get("details", ()) if isinstance(error, Mapping) else ()
    return [detail for detail in details if isinstance(detail, Mapping)] if isinstance(details, list) else []


def _retry_seconds(details: list[Mapping[str, Any]], header: str | None) -> float | None:
    """Of google.rpc.RetryInfo and Retry-After the longer one; a Retry-After that is a date counts as none."""
    asked = [str(detail.get("retryDelay", "")) for detail in details if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo")]
    found = [DURATION.fullmatch(text.strip()) for text in (*asked, header or "")]
    return max((float(one[1]) for one in found if one is not None), default=None)


def unusable(response: "types.GenerateContentResponse") -> str | None:
    """Why an answer with status 200 holds nothing to work with, or None. The SDK raises for none of these."""
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        return f"the prompt was blocked: {feedback.block_reason.value}"
    if not response.candidates:
        return "an answer without candidates"
    candidate = response.candidates[0]
    reason = candidate.finish_reason
    if reason is not None and reason.value != "STOP":
        hint = "; raise max_output_tokens or lower thinking_budget" if reason.value == "MAX_TOKENS" else ""
        return f"the answer ended with {reason.value}{hint}"
    if candidate.content is None or not candidate.content.parts:
        return "an answer without content"
    return None


def text_of(content: "types.Content") -> str:
    """What the model says in a content, without its thoughts."""
    return "".join(part.text for part in content.parts or () if part.text and not part.thought)


def as_json(value: Any, longest: int) -> str:
    """A value in few characters, cut where it is longer."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[:longest]}… (cut)"
