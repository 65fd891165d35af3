"""Where something is listened for, and the token that whoever connects has to show: for sections of an inventory file. No Prefect."""

import re

from pydantic import Field, SecretStr, field_validator

from blocks.model import Model

TOKEN_LENGTH = 16


class Listener(Model):
    """An address to listen at, and the bearer token that is wanted there."""

    listen: str = Field(description="host:port; 127.0.0.1 is reached from the same machine only.")
    token: SecretStr

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, given: str) -> str:
        found = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})", given)
        if found is None or int(found[1]) > 65535:
            raise ValueError(f"write host:port, such as {cls.model_fields['listen'].default}")
        return given

    @field_validator("token")
    @classmethod
    def _is_hard_to_guess(cls, given: SecretStr) -> SecretStr:
        if re.fullmatch(rf"[\x21-\x7e]{{{TOKEN_LENGTH},}}", given.get_secret_value()) is None:
            raise ValueError(f"the variable has to hold at least {TOKEN_LENGTH} printable characters without spaces")
        return given
