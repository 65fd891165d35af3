"""The section `gemini` of an inventory file, or what the environment says in its place. No Prefect."""

import json
import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import SecretStr, ValidationError, model_validator

from blocks.errors import ConfigurationError
from blocks.gemini_settings import GeminiSettings

SECRETS = ("api_key", "service_account")
KEY = "GEMINI_API_KEY"
BASE_URLS = ("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")
MODEL = "GEMINI_MODEL"
VARIABLES = {"api_key": KEY, "base_url": " or ".join(BASE_URLS), "model": MODEL}


class Gemini(GeminiSettings):
    """Settings, and with what Gemini is reached: an API key, or for Vertex AI a service account, else the machine's own credentials."""

    api_key: SecretStr | None = None
    service_account: SecretStr | None = None

    @property
    def settings(self) -> GeminiSettings:
        """All but the secrets."""
        return GeminiSettings.model_validate(self.model_dump(exclude=set(SECRETS)))

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        if self.vertex is None:
            if self.service_account is not None:
                raise ValueError("service_account: belongs to Vertex AI; add vertex: {project: ...}, or give api_key in its place")
            if self.api_key is None and self.base_url is None:
                raise ValueError(f"api_key: is missing; write api_key: ${{{KEY}}}, or vertex: {{project: ...}}")
        elif self.api_key is not None:
            raise ValueError("api_key: Vertex AI is reached with a service account or the machine's own credentials; remove it, or vertex")
        if self.api_key is not None and re.fullmatch(r"[\x21-\x7e]+", self.api_key.get_secret_value()) is None:
            raise ValueError("api_key: the variable holds a space or a character that no key has; set it again")
        if self.service_account is not None and not _is_key_file(self.service_account.get_secret_value()):
            raise ValueError("service_account: the variable must hold the JSON of a service account's key file, with its private key")
        return self


def gemini_of_environment(environment: Mapping[str, str]) -> Gemini | None:
    """Defaults with the key, the address and the model that the environment names; None where it has neither key nor address.

    ConfigurationError names the variable that holds something else.
    """
    base_url = next((environment[name] for name in BASE_URLS if environment.get(name)), None)
    key = environment.get(KEY) or None
    if key is None and base_url is None:
        return None
    given: dict[str, Any] = {"api_key": key, "base_url": base_url}
    if environment.get(MODEL):
        given["model"] = environment[MODEL]
    try:
        return Gemini.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_input=False)
        raise ConfigurationError([f"environment: {_named(one['loc'], one['msg'])}" for one in problems]) from None


def _named(location: tuple[int | str, ...], message: str) -> str:
    """The problem with the variable's name before it in place of the field's."""
    field, text = (str(location[0]), message) if location else message.removeprefix("Value error, ").split(": ", 1)
    return f"{VARIABLES[field]}: {text}"


def _is_key_file(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(found.get(name), str) for name in ("client_email", "private_key", "token_uri"))
