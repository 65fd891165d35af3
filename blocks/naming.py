"""Which block a login is in. No Prefect."""

from blocks.schema import Inventory

Login = tuple[str, str]
"""Resource and purpose."""


def block_owners(inventory: Inventory) -> dict[Login, Login]:
    """Each login, and the one under whose name it is saved: the first of the same user at the same address.

    A user of a server has one password, however many resources are measured there; to save a block takes the server 50 ms.
    """
    owners: dict[tuple[str, str], Login] = {}
    return {
        (resource.name, purpose): owners.setdefault((resource.address, username), (resource.name, purpose))
        for resource in inventory.resources
        for purpose, username in resource.logins.items()
    }


def block_name(inventory: str, login: Login) -> str:
    """The name of a login's block."""
    return f"{inventory}-{login[0]}-{login[1]}"


def block_serves(inventory: str, login: Login) -> str:
    """What a login's block is for; unlike its name never the same for two inventories."""
    return f"{inventory}/{login[0]}/{login[1]}"
