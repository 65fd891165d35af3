"""Requests to Gemini by google-genai: one loop of retries under one deadline, what was used, and errors that hold no key.

`ModelFailed` is all that comes out of here, whatever the SDK, the transport or the credentials raise.
"""

import asyncio
import json
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from blocks.gemini_settings import GeminiSettings
from tasks.core.errors import EvenkeelError
from tasks.core.models import Usage
from tasks.planners.gemini_errors import MOST_WORDS, Failure, failure_of, unusable
from tasks.tracing import span

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.genai import types

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
CLOSE_TO_THE_DEADLINE_SECONDS = 0.05
GEMINI_URL = "https://generativelanguage.googleapis.com/"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
NO_KEY = "none"  # a server at a base URL of one's own may want no key; the SDK does
MILLION = 1_000_000


class ModelFailed(EvenkeelError):
    """The model gave no usable answer. A fault of the service: it refused or could not be reached; of the request: of its form."""

    def __init__(self, message: str, *, is_service_fault: bool = False, is_request_fault: bool = False) -> None:
        super().__init__(message)
        self.is_service_fault = is_service_fault
        self.is_request_fault = is_request_fault


@dataclass(frozen=True)
class GeminiAccess:
    """With what Gemini is reached: an API key, or for Vertex AI a service account's key file, else the machine's own credentials."""

    api_key: str | None = field(default=None, repr=False)
    service_account: str | None = field(default=None, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown anywhere."""
        found = (self.api_key, self.service_account and json.loads(self.service_account)["private_key"])
        return tuple(secret for secret in found if secret)


@dataclass
class Session:
    """One plan's requests: its deadline on the event loop's clock, and what they have used so far."""

    deadline: float
    usage: Usage = field(default_factory=Usage)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        """Until the deadline; negative after it."""
        return self.deadline - asyncio.get_running_loop().time()

    def waited(self, seconds: float) -> None:
        """Count time that was spent on the model's side."""
        self.usage += Usage(seconds=seconds)


_session: ContextVar[Session] = ContextVar("evenkeel_gemini_session")


class _TimedClient(httpx.AsyncClient):
    """Counts the time between a request and the end of its answer as the model's."""

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        started = time.perf_counter()
        try:
            return await super().send(request, **options)
        finally:
            _session.get().waited(time.perf_counter() - started)


class GeminiClient:
    """The SDK's client on an HTTP client of our own. Opening it loads the SDK, which takes half a second once a process."""

    def __init__(self, settings: GeminiSettings, access: GeminiAccess) -> None:
        from google import genai
        from google.genai import types

        self.settings = settings
        self._access = access
        proxied = settings.base_url is None
        verify = ssl.create_default_context()
        self._http = _TimedClient(verify=verify, trust_env=proxied)
        # The second one is never used, but where it is missing the SDK makes one that reads all certificates again.
        self._unused = httpx.Client(verify=verify, trust_env=proxied)
        options = types.HttpOptions(
            api_version="v1beta" if settings.vertex is None else "v1beta1",
            base_url=settings.base_url or (GEMINI_URL if settings.vertex is None else None),
            timeout=int(settings.timeout_seconds * 1000),
            httpx_client=self._unused,
            httpx_async_client=self._http,
        )
        if settings.vertex is None:
            self._sdk = genai.Client(vertexai=False, api_key=access.api_key or NO_KEY, http_options=options)
        else:
            self._sdk = genai.Client(
                vertexai=True,
                project=settings.vertex.project,
                location=settings.vertex.location,
                credentials=_credentials(access.service_account),
                http_options=options,
            )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        self._unused.close()
        await self._sdk.aio.aclose()
        self._sdk.close()

    def common_config(self) -> dict[str, Any]:
        """Arguments of every request's GenerateContentConfig."""
        from google.genai import types

        budget = self.settings.thinking_budget
        return {
            "temperature": self.settings.temperature,
            "max_output_tokens": self.settings.max_output_tokens,
            # A declared function is never run by the SDK.
            "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
            "thinking_config": None if budget is None else types.ThinkingConfig(thinking_budget=budget),
        }

    async def generate(self, session: Session, contents: "list[types.Content]", config: "types.GenerateContentConfig") -> "types.Content":
        """The content of the model's answer, complete and with at least one part.

        429, 500, 502, 503, 504 and lost connections are tried again while the session's deadline allows, after the time that
        the service asks for. ModelFailed says what ended it.
        """
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            with span(f"chat {self.settings.model}", self._asked()) as opened:
                result = await self._once(session, contents, config)
                if isinstance(result, Failure):
                    opened.set_attribute("error.type", "Failure")
                else:
                    self._meter(session, result)
                    opened.set_attributes(_used(result))
            if not isinstance(result, Failure):
                reason = unusable(result)
                if reason is not None:
                    raise ModelFailed(reason)
                return result.candidates[0].content  # type: ignore[index,return-value]  # unusable() has looked
            wait = max(pause, result.retry_seconds or 0)
            given_up = self._given_up(result, attempt, session.seconds_left - wait)
            if given_up is not None:
                raise ModelFailed(f"{result.text}{given_up}", is_service_fault=True, is_request_fault=result.is_request_fault)
            session.notes.append(f"gemini: {result.text}; tried again after {wait:g} s")
            await asyncio.sleep(wait)
            session.waited(wait)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _given_up(failure: Failure, attempt: int, seconds_left_after_pause: float) -> str | None:
        """The words for why it is not tried again, or None."""
        if not failure.repeatable:
            return ""
        if attempt == ATTEMPTS:
            return f", {ATTEMPTS} times"
        if seconds_left_after_pause <= CLOSE_TO_THE_DEADLINE_SECONDS:
            return (
                ", and no time is left to try again" if failure.retry_seconds is None else f"; it asks to wait {failure.retry_seconds:g} s"
            )
        return None

    async def _once(
        self, session: Session, contents: "list[types.Content]", config: "types.GenerateContentConfig"
    ) -> "types.GenerateContentResponse | Failure":
        session.usage += Usage(requests=1)
        token = _session.set(session)
        try:
            # The SDK's timeout is one of each read: it does not bound an answer that trickles.
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await self._sdk.aio.models.generate_content(model=self.settings.model, contents=contents, config=config)
        except TimeoutError:
            return Failure(f"no answer within {self.settings.timeout_seconds:g} s", repeatable=True)
        except Exception as error:
            failure = failure_of(error, self._scrub)
            if failure is None:
                raise
            # Returned and raised by the caller: an error raised here would carry the SDK's, and that one the key.
            return failure
        finally:
            _session.reset(token)

    def _scrub(self, text: str) -> str:
        for secret in self._access.secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:MOST_WORDS]

    def _asked(self) -> dict[str, str]:
        """Of a request, by OpenTelemetry's names."""
        provider = "gcp.gemini" if self.settings.vertex is None else "gcp.vertex_ai"
        return {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": self.settings.model}

    def _meter(self, session: Session, response: "types.GenerateContentResponse") -> None:
        given, made = _tokens(response)
        settings = self.settings
        dollars = (given * settings.dollars_per_million_input_tokens + made * settings.dollars_per_million_output_tokens) / MILLION
        session.usage += Usage(input_tokens=given, output_tokens=made, dollars=dollars)


def _tokens(response: "types.GenerateContentResponse") -> tuple[int, int]:
    """What went in, and what came out; thinking is output."""
    used = response.usage_metadata
    if used is None:
        return 0, 0
    given = (used.prompt_token_count or 0) + (used.tool_use_prompt_token_count or 0)
    return given, (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)


def _used(response: "types.GenerateContentResponse") -> dict[str, int]:
    given, made = _tokens(response)
    return {"gen_ai.usage.input_tokens": given, "gen_ai.usage.output_tokens": made}


def load_sdk() -> None:
    """Import google-genai: about 0.5 s and 60 MB, which only a process that plans should pay."""
    import google.genai  # noqa: F401


def _credentials(service_account: str | None) -> "Credentials | None":
    """None: the SDK finds the machine's own, with its first request."""
    if service_account is None:
        return None
    from google.oauth2.service_account import Credentials

    info: dict[str, Any] = json.loads(service_account)
    made: Credentials = Credentials.from_service_account_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    return made
