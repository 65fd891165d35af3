"""The section `gcp` of an inventory file: the project of Google Cloud, and with what it is reached. No Prefect."""

import json
import re
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from blocks.kinds import CLOUD_KINDS, Kind
from blocks.model import Model

KEY_FIELDS = ("client_email", "private_key", "token_uri")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
ALL_KINDS = (Kind.COMPUTE_ENGINE, Kind.CLOUD_SQL, Kind.MEMORYSTORE)


class Discover(Model):
    """Which instances are watched without being declared one by one."""

    labels: dict[str, str] = Field(default_factory=dict, description="Labels that an instance has to have, all of them; none: any.")
    kinds: tuple[Kind, ...] = Field(ALL_KINDS, min_length=1)

    @model_validator(mode="after")
    def _can_be_found(self) -> Self:
        for kind in self.kinds:
            if kind not in CLOUD_KINDS:
                raise ValueError(f"kinds: {kind} is not found through Google's API; known: {', '.join(ALL_KINDS)}")
        for key, value in self.labels.items():
            if LABEL_KEY.fullmatch(key) is None or LABEL_VALUE.fullmatch(value) is None:
                raise ValueError(f"labels: {key}={value} can't be a label; Google takes lower-case letters, digits, _ and -")
        return self


class Gcp(Model):
    """A project, and the identity under which it is asked: a service account's key, else the machine's own credentials."""

    project: str = Field(pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", description="The project's id, not its number or name.")
    service_account: SecretStr | None = Field(
        None, description="JSON of a service account's key file; none: Application Default Credentials of the machine that flows run on."
    )
    impersonate: str | None = Field(None, description="Email of a service account under which everything is done instead.")
    discover: Discover | None = Field(None, description="None: only declared instances are watched.")

    @field_validator("service_account")
    @classmethod
    def _is_a_key_file(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not _is_key_file(given.get_secret_value()):
            raise ValueError(f"the variable must hold the JSON of a service account's key file, with {', '.join(KEY_FIELDS)}")
        return given

    @field_validator("impersonate")
    @classmethod
    def _is_an_email(cls, given: str | None) -> str | None:
        if given is not None and EMAIL.fullmatch(given) is None:
            raise ValueError("write the service account's email, such as keeper@my-project.iam.gserviceaccount.com")
        return given


def _is_key_file(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(found.get(name), str) for name in KEY_FIELDS)
