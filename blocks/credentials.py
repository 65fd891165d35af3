"""Logins as blocks."""

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import Field, SecretStr

from blocks.documents import read
from blocks.errors import ConfigurationError
from blocks.naming import block_name, block_owners, block_serves
from blocks.schema import Inventory


class Login(Block):
    """A user of a server. Saved by `python -m blocks.register`."""

    _block_type_name = "Evenkeel Login"
    _block_type_slug = "evenkeel-login"

    username: str
    password: SecretStr
    serves: str = Field("", description="inventory/resource/purpose: what this login is for, or the first of what it is for.")


async def load_logins(inventory: Inventory) -> dict[tuple[str, str], Login]:
    """Every login of an inventory, by resource and purpose. ConfigurationError names those that are not saved."""
    owners = block_owners(inventory)
    names = {owner: block_name(inventory.name, owner) for owner in owners.values()}
    async with get_client() as client:
        documents = await read(client, Login, names.values())
    saved: dict[tuple[str, str], Login] = {}
    for owner, name in names.items():
        document = documents.get(name)
        if document is not None and document.data.get("serves") == block_serves(inventory.name, owner):
            saved[owner] = Login.model_validate(document.data)
    missing = [".".join(login) for login, owner in owners.items() if owner not in saved]
    if missing:
        raise ConfigurationError(
            [f"{login}: this login is not saved; register the inventory {inventory.name!r} again" for login in missing]
        )
    return {login: saved[owner] for login, owner in owners.items()}
