"""What a configuration declares of an Nginx besides its address. No Prefect."""

import re
from typing import Self

from pydantic import Field, model_validator

from blocks.model import Model


class CertificateFiles(Model):
    """A certificate with its key, both PEM."""

    certificate: str = Field(description="Path of the certificate, with the intermediate ones after it.")
    key: str = Field(description="Path of its private key.")


class NginxDeclared(Model):
    """How an Nginx is meant to be: what its probe also looks at, and all that its tools may put in place."""

    pages: tuple[str, ...] = Field((), description="Paths that must answer besides the address, such as /static/shop.css.")
    upstreams: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Upstream block -> every host:port that may stand in it."
    )
    certificate: CertificateFiles | None = Field(None, description="A valid pair that may be installed where the configuration's is.")
    ca_path: str | None = Field(
        None, description="PEM file of the authority that an https address is checked against; none: the public ones."
    )
    modes: dict[str, str] = Field(default_factory=dict, description='Path of a file or directory -> its right mode, such as "0755".')

    @model_validator(mode="after")
    def _is_well_formed(self) -> Self:
        for path, mode in self.modes.items():
            if re.fullmatch(r"0?[0-7]{3}", mode) is None or int(mode, 8) & 0o002:
                raise ValueError(f'modes.{path}: write three octal digits in quotes, not writable for others, such as "0755"; not {mode!r}')
        for page in self.pages:
            if not page.startswith("/"):
                raise ValueError(f"pages: {page!r} is no path; write it from the slash on")
        return self
