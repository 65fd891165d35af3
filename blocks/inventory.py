"""The inventory as a block."""

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import Field, JsonValue, ValidationError

from blocks.credentials import Login, load_logins
from blocks.documents import read
from blocks.errors import ConfigurationError
from blocks.schema import Inventory

__all__ = ["InventoryBlock", "load_inventory", "load_login", "load_logins"]


class InventoryBlock(Block):
    """An inventory, saved under its own name by `python -m blocks.register`; change the YAML file, not the block."""

    _block_type_name = "Evenkeel Inventory"
    _block_type_slug = "evenkeel-inventory"

    inventory: dict[str, JsonValue] = Field(description="The inventory, as JSON.")


async def load_inventory(name: str) -> Inventory:
    """The inventory of that name. ConfigurationError if it is not saved, or was saved by a version that had other fields."""
    async with get_client() as client:
        document = (await read(client, InventoryBlock, [name])).get(name)
    if document is None:
        raise ConfigurationError(f"inventory: none named {name!r} is saved; run: python -m blocks.register inventory.yaml")
    try:
        return Inventory.model_validate(document.data["inventory"])
    except ValidationError as error:
        count = error.error_count()
        raise ConfigurationError(f"inventory {name!r}: {count} field(s) no longer fit; register its YAML file again") from error


async def load_login(inventory: str, resource: str, purpose: str) -> Login:
    """One login. ConfigurationError if the inventory or the login is not saved."""
    logins = await load_logins(await load_inventory(inventory))
    if (resource, purpose) not in logins:
        raise ConfigurationError(f"inventory {inventory!r}: {resource}.logins.{purpose} is not one of its logins; add it to its YAML file")
    return logins[resource, purpose]
