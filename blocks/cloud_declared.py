"""What a configuration declares of a resource in Google Cloud besides its name. No Prefect."""

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from blocks.model import Model, Name

HOST_KEY = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?")


class SshDeclared(Model):
    """How a virtual machine is reached over SSH; the user and the private key are its login `monitor`."""

    by: Literal["asyncssh", "gcloud"] = Field(
        "asyncssh",
        description="asyncssh: one kept connection; gcloud: `gcloud compute ssh` with IAP, a second and more a command.",
    )
    host: str | None = Field(None, description="Address; none: the instance's own, the external one where it has one.")
    port: int = Field(22, ge=1, le=65535)
    host_keys: tuple[str, ...] = Field(
        (), description="Public host keys that are accepted, such as ssh-ed25519 AAAA...; asyncssh needs one."
    )

    @model_validator(mode="after")
    def _pins_its_host(self) -> Self:
        if self.by == "asyncssh" and not self.host_keys:
            raise ValueError("host_keys: name the machine's public host key, as `ssh-keyscan HOST` prints it without the host")
        for key in self.host_keys:
            if HOST_KEY.fullmatch(key) is None:
                raise ValueError(f"host_keys: {key[:40]!r} is no public key; write its type and its text, such as ssh-ed25519 AAAA...")
        return self


class CloudDeclared(Model):
    """Where a resource of Google Cloud is, and how it is reached."""

    location: str | None = Field(None, description="Its zone (Compute Engine) or region; none: it is found.")
    ssh: SshDeclared | None = Field(None, description="None: inside the machine only Cloud Monitoring measures (Compute Engine).")
    through: Name | None = Field(
        None, description="The Compute Engine resource through which a private address is reached (Cloud SQL, Memorystore); none: directly."
    )
    database: str = Field("postgres", description="The database that is logged into (Cloud SQL).")
