"""The section `notify` of an inventory file: where people are told. No Prefect."""

import re
from collections.abc import Callable
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from blocks.model import Model

SLACK = re.compile(r"https://hooks\.slack(-gov)?\.com/services/\w+/\w+/\w+/?")
SECRETS = (("slack",), ("webhook",), ("email", "sendgrid_api_key"))
"""The fields that are secrets: a webhook's address lets anybody write there."""

Address = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]


def _checked(fits: Callable[[str], bool], remedy: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if not fits(value.get_secret_value()):
            raise ValueError(remedy)  # without the value
        return value

    return AfterValidator(check)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


class Email(Model):
    """E-mail by SendGrid, the one mail service that a Prefect server can send through by itself."""

    sendgrid_api_key: Annotated[SecretStr, _checked(lambda key: re.fullmatch(r"[\w.-]+", key) is not None, "not a SendGrid API key")]
    sender: Address
    recipients: tuple[Address, ...] = Field(min_length=1)


class Notify(Model):
    """The channels by which people are told."""

    slack: (
        Annotated[
            SecretStr,
            _checked(
                lambda url: SLACK.fullmatch(url) is not None,
                "the variable holds no Slack webhook; it looks like https://hooks.slack.com/services/T.../B.../...",
            ),
        ]
        | None
    ) = None
    webhook: Annotated[SecretStr, _checked(_is_url, "the variable holds no address; write http(s)://host/path into it")] | None = None
    email: Email | None = None
    silence_seconds: float = Field(
        300, ge=60, le=86400, description="People are told when a monitor that was at work has not swept for so long."
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if self.slack is None and self.webhook is None and self.email is None:
            raise ValueError("name at least one of slack, webhook and email, or leave `notify` out")
        return self
