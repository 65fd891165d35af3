"""Google Cloud as a block: the project of an inventory, and the identity under which it is asked."""

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from pydantic import Field, SecretStr, ValidationError

from blocks.documents import read, write
from blocks.errors import ConfigurationError
from blocks.gcp_section import Discover, Gcp

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
IMPERSONATED_SECONDS = 3600
_known: dict[str, tuple["Credentials", str]] = {}
"""Of this process: each project's credentials keep their token, which is renewed by itself before it runs out."""


class GcpProject(Block):
    """Lets the inventory of the same name watch a project of Google Cloud. Saved by `python -m blocks.register`."""

    _block_type_name = "Evenkeel GCP Project"
    _block_type_slug = "evenkeel-gcp-project"

    project: str = Field(description="The project's id.")
    service_account: SecretStr | None = Field(
        None, description="JSON of a service account's key file; none: Application Default Credentials of the machine that flows run on."
    )
    impersonate: str | None = Field(None, description="Email of a service account under which everything is done instead.")
    discover: Discover | None = Field(None, description="Which instances are watched without being declared; none: none.")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown anywhere: the private key, as it is and as it stands in JSON."""
        if self.service_account is None:
            return ()
        key = str(json.loads(self.service_account.get_secret_value())["private_key"])
        return key, json.dumps(key)[1:-1]

    async def credentials(self) -> tuple["Credentials", str]:
        """Credentials with their scopes, and whose they are; the same ones for every caller in this process.

        ConfigurationError names the field and the remedy, and never holds the key.
        """
        given = (self.project, "" if self.service_account is None else self.service_account.get_secret_value(), self.impersonate or "")
        key = hashlib.sha256("\0".join(given).encode()).hexdigest()
        if key not in _known:
            # In a thread: the machine's own credentials may be asked for over the network.
            _known[key] = await asyncio.to_thread(self._made)
        return _known[key]

    def _made(self) -> tuple["Credentials", str]:
        from google.auth.credentials import with_scopes_if_required

        scoped = with_scopes_if_required(self._own(), SCOPES)  # type: ignore[no-untyped-call]
        if self.impersonate is None:
            return scoped, _identity(scoped)
        from google.auth import impersonated_credentials

        assumed = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
            source_credentials=scoped, target_principal=self.impersonate, target_scopes=SCOPES, lifetime=IMPERSONATED_SECONDS
        )
        return assumed, self.impersonate

    def _own(self) -> Any:
        """Through prefect-gcp, which takes a key first and the machine's own credentials else."""
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
        from prefect_gcp.credentials import GcpCredentials

        info = None if self.service_account is None else json.loads(self.service_account.get_secret_value())
        try:
            return GcpCredentials(service_account_info=info, project=self.project).get_credentials_from_service_account()
        except DefaultCredentialsError:
            problem = (
                "gcp.service_account: none is given, and this machine has no Application Default Credentials; write "
                "service_account: ${GCP_SERVICE_ACCOUNT}, or run `gcloud auth application-default login` on the machine that flows run on"
            )
        except (GoogleAuthError, ValueError) as error:  # ValidationError is a ValueError: its text would hold the key
            problem = (
                f"gcp.service_account: no credentials can be made of it ({type(error).__name__}); make a new key with "
                "`gcloud iam service-accounts keys create`, put the file's JSON into the variable, and register the inventory again"
            )
        # Raised here, so that no frame that holds the key goes along.
        raise ConfigurationError(problem)


def _identity(credentials: Any) -> str:
    """The email where the credentials tell it; the machine's metadata server tells it with the first token only."""
    email = getattr(credentials, "service_account_email", None) or getattr(credentials, "account", None)
    return str(email) if email and email != "default" else f"the machine's own credentials ({type(credentials).__module__})"


async def save_gcp(client: PrefectClient, inventory: str, gcp: Gcp | None) -> tuple[int, int]:
    """Save the inventory's project, or forget it. Returns how many blocks that wrote and deleted."""
    if gcp is not None:
        block = GcpProject.model_validate({name: getattr(gcp, name) for name in Gcp.model_fields})
        return await write(client, {inventory: block}), 0
    saved = await read(client, GcpProject, [inventory])
    for document in saved.values():
        await client.delete_block_document(document.id)
    return 0, len(saved)


async def load_gcp(inventory: str) -> GcpProject | None:
    """The inventory's block, or None where it has no project. ConfigurationError if it was edited into something invalid."""
    async with get_client() as client:
        document = (await read(client, GcpProject, [inventory])).get(inventory)
    if document is None:
        return None
    try:
        checked = Gcp.model_validate({name: document.data.get(name) for name in Gcp.model_fields})
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors(include_input=False)]
        remedy = f"edit the Evenkeel GCP Project block {inventory!r} in the UI, or register the YAML file again"
        raise ConfigurationError([f"gcp {inventory!r}: {field}: {said}; {remedy}" for field, said in problems]) from None
    return GcpProject.model_validate({name: getattr(checked, name) for name in Gcp.model_fields})
