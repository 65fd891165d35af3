"""How Gemini is asked, without the secrets that it is asked with. No Prefect."""

import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from blocks.model import Model

MODEL_NAME = r"^[A-Za-z0-9._/@-]+$"


class Vertex(Model):
    """A project of Google Cloud through which Gemini is reached on Vertex AI, instead of with an API key."""

    project: str = Field(min_length=1)
    location: str = Field("global", pattern=r"^[a-z0-9-]+$")


class Shadow(Model):
    """A planner that plans every incident beside the one that acts. Its plans are ruled on and recorded, and never executed.

    What is not given is as for the planner that acts.
    """

    planner: Literal["gemini", "runbook"] = Field("gemini", description="Who plans in the shadow.")
    model: str | None = Field(None, pattern=MODEL_NAME, description="Name of the model.")
    total_seconds: float | None = Field(None, gt=0, le=900, description="Longest time for one plan; then there is none.")
    tokens_per_day: int | None = Field(None, ge=0, description="Tokens of one UTC day, counted apart.")
    dollars_per_day: float | None = Field(None, ge=0, description="US dollars of one UTC day, counted apart.")
    dollars_per_million_input_tokens: float | None = Field(None, ge=0, description="Price of the model.")
    dollars_per_million_output_tokens: float | None = Field(None, ge=0, description="Price of the model; thinking is output.")


class GeminiSettings(Model):
    """How Gemini plans: which model, how long it may take, and what it may cost."""

    model: str = Field("gemini-2.5-flash", pattern=MODEL_NAME, description="Name of the model.")
    temperature: float = Field(0, ge=0, le=2)
    thinking_budget: int | None = Field(
        1024, ge=-1, le=32768, description="Tokens for thinking; 0: none, -1: the model decides, null: not sent, for models that know none."
    )
    timeout_seconds: float = Field(30, gt=0, le=600, description="Longest time for one request.")
    total_seconds: float = Field(75, gt=0, le=900, description="Longest time for one plan with all its requests; then a runbook plans.")
    max_output_tokens: int = Field(8192, ge=256, le=65536, description="Longest answer; thinking counts.")
    max_input_tokens: int = Field(6000, ge=1000, le=200_000, description="Longest prompt of an incident, estimated.")
    tokens_per_day: int = Field(2_000_000, ge=0, description="Tokens of one UTC day, after which runbooks plan.")
    dollars_per_day: float = Field(5, ge=0, description="US dollars of one UTC day, after which runbooks plan.")
    dollars_per_million_input_tokens: float = Field(0.30, ge=0, description="Price of the model.")
    dollars_per_million_output_tokens: float = Field(2.50, ge=0, description="Price of the model; thinking is output.")
    base_url: str | None = Field(None, description="Another address of the API, reached without the environment's proxy.")
    vertex: Vertex | None = Field(None, description="Vertex AI in place of the Developer API.")
    acts: bool = Field(True, description="false: runbooks act, and Gemini plans in the shadow alone.")
    shadow: Shadow | None = Field(None, description="A second planner, whose plans are shown beside and never executed.")

    @property
    def of_the_shadow(self) -> "GeminiSettings":
        """How Gemini is asked in the shadow; ValueError where nobody plans there."""
        if self.shadow is None:
            raise ValueError("shadow: nobody plans there; add it")
        return self.model_copy(update={**self.shadow.model_dump(exclude={"planner"}, exclude_none=True), "shadow": None})

    @model_validator(mode="after")
    def _is_asked_for_something(self) -> Self:
        if not self.acts and (self.shadow is None or self.shadow.planner != "gemini"):
            raise ValueError("acts: is false, so Gemini would never be asked; add shadow: {}, or remove acts")
        return self

    @model_validator(mode="after")
    def _keeps_the_key_to_itself(self) -> Self:
        if self.base_url is None:
            return self
        url = urlsplit(self.base_url)
        is_local = url.hostname in {"127.0.0.1", "localhost", "::1"}
        if re.fullmatch(r"[A-Za-z0-9.:-]+", url.hostname or "") is None or url.scheme not in ({"http", "https"} if is_local else {"https"}):
            raise ValueError("base_url: write https://HOST; http:// is for this machine only, for the key travels with every request")
        if url.username or url.password or url.query:
            raise ValueError("base_url: an address holds no login; write it as api_key: ${GEMINI_API_KEY}")
        return self
