"""The inventory as a block. Its rules are a block of their own, the policy, which a person may edit."""

import asyncio
from datetime import datetime

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from pydantic import Field, JsonValue, ValidationError

from blocks.credentials import Login, load_logins
from blocks.documents import read, write
from blocks.errors import ConfigurationError
from blocks.policy import PolicyBlock, rules_of
from blocks.schema import Inventory

__all__ = ["InventoryBlock", "load_dated_inventory", "load_inventory", "load_login", "load_logins", "save_inventory"]


class InventoryBlock(Block):
    """An inventory, saved under its own name by `python -m blocks.register`; change the YAML file, not the block."""

    _block_type_name = "Evenkeel Inventory"
    _block_type_slug = "evenkeel-inventory"

    inventory: dict[str, JsonValue] = Field(description="The inventory without its rules, as JSON.")


async def save_inventory(client: PrefectClient, inventory: Inventory) -> int:
    """Save an inventory and its rules, the inventory last. Returns how many blocks that wrote."""
    written = await write(client, {inventory.name: PolicyBlock(rules=inventory.rules)})
    return written + await write(client, {inventory.name: InventoryBlock(inventory=inventory.model_dump(mode="json", exclude={"rules"}))})


async def load_inventory(name: str) -> Inventory:
    """The inventory of that name, with the rules of its policy as they are now.

    ConfigurationError if one of the two is not saved, was saved by a version that had other fields, or was edited into something invalid.
    """
    return (await load_dated_inventory(name))[0]


async def load_dated_inventory(name: str) -> tuple[Inventory, datetime | None]:
    """The same, and when it or its rules were last changed, by the clock of Prefect's server."""
    async with get_client() as client:
        found, policies = await asyncio.gather(read(client, InventoryBlock, [name]), read(client, PolicyBlock, [name]))
    if name not in found:
        raise ConfigurationError(f"inventory: none named {name!r} is saved; run: python -m blocks.register inventory.yaml")
    if name not in policies:
        raise ConfigurationError(f"policy: inventory {name!r} has none; register its YAML file again: without rules nothing may be done")
    rules = rules_of(policies[name])
    changes = [document.updated for document in (found[name], policies[name]) if document.updated is not None]
    try:
        return Inventory.model_validate({**found[name].data["inventory"], "rules": rules}), max(changes, default=None)
    except ValidationError as error:
        count = error.error_count()
        raise ConfigurationError(f"inventory {name!r}: {count} field(s) no longer fit; register its YAML file again") from error


async def load_login(inventory: str, resource: str, purpose: str) -> Login:
    """One login. ConfigurationError if the inventory or the login is not saved."""
    logins = await load_logins(await load_inventory(inventory))
    if (resource, purpose) not in logins:
        raise ConfigurationError(f"inventory {inventory!r}: {resource}.logins.{purpose} is not one of its logins; add it to its YAML file")
    return logins[resource, purpose]
