"""Save an inventory: `python -m blocks.register inventory.yaml [--env-file FILE]`. The only reader of the environment."""

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from dotenv.parser import parse_stream
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr, ValidationError

from blocks.alerts import save_alerts
from blocks.credentials import Login
from blocks.documents import read, write
from blocks.errors import ConfigurationError
from blocks.gcp import save_gcp
from blocks.gemini import save_gemini
from blocks.inventory import InventoryBlock, save_inventory
from blocks.inventory_file import Registration, parse_inventory
from blocks.mcp_access import save_mcp
from blocks.naming import block_name, block_owners, block_serves
from blocks.notifications import save_notifications
from blocks.records import RECORDS, RETENTION_DAYS, RecordsBlock
from blocks.records_url import records_url
from blocks.schema import Inventory
from blocks.vanished import save_vanished


@dataclass(frozen=True)
class Saved:
    """How many blocks and automations a registration wrote and deleted."""

    written: int
    deleted: int


async def register(registration: Registration) -> Saved:
    """Save an inventory, its rules, its logins and the records' place; delete the logins that it no longer has.

    What is saved already is not written again. The inventory comes last of what is written: until then a monitor sees the old
    one whole. ConfigurationError, with nothing saved, if a login's block would be that of another inventory.
    """
    inventory = registration.inventory
    logins: dict[str, Block] = {}
    for owner in dict.fromkeys(block_owners(inventory).values()):
        credential = registration.logins[owner]
        serves = block_serves(inventory.name, owner)
        logins[block_name(inventory.name, owner)] = Login(username=credential.username, password=credential.password, serves=serves)
    async with get_client() as client:
        await _refuse_collisions(client, inventory)
        before = (await read(client, InventoryBlock, [inventory.name])).get(inventory.name)
        written = await write(client, logins)
        written += await write(client, {RECORDS: await _records(client, registration)})
        sections = [
            await save_gemini(client, inventory.name, registration.gemini),
            await save_gcp(client, inventory.name, registration.gcp),
            await save_alerts(client, inventory.name, registration.alerts),
            await save_mcp(client, inventory.name, registration.mcp),
        ]
        written += sum(section[0] for section in sections) + await save_inventory(client, inventory)
        stale = await _stale(client, before, logins)
        for document in stale:
            await client.delete_block_document(document.id)
        told = await save_notifications(client, inventory.name, registration.notify)
        written += await save_vanished(client)
    return Saved(written + told.written, len(stale) + sum(section[1] for section in sections) + told.deleted)


async def _refuse_collisions(client: PrefectClient, inventory: Inventory) -> None:
    """Dashes may stand in both names: inventory a-b with resource c, and inventory a with resource b-c."""
    serves = _serves(inventory)
    problems = [
        f"the login block {name!r} is that of {document.data.get('serves') or 'somebody else'}; rename the inventory or the resource"
        for name, document in (await read(client, Login, serves)).items()
        if document.data.get("serves") != serves[name]
    ]
    if problems:
        raise ConfigurationError(problems)


def _serves(inventory: Inventory) -> dict[str, str]:
    """The names of an inventory's login blocks, and what each is for."""
    owners = block_owners(inventory).values()
    return {block_name(inventory.name, owner): block_serves(inventory.name, owner) for owner in owners}


async def _records(client: PrefectClient, registration: Registration) -> RecordsBlock:
    """What the file says of the records; for the rest what is saved, else the defaults."""
    document = (await read(client, RecordsBlock, [RECORDS])).get(RECORDS)
    saved = None if document is None else RecordsBlock.model_validate(document.data)
    url, days = registration.records_url, registration.retention_days
    if url is None:
        url = SecretStr(records_url().render_as_string(hide_password=False)) if saved is None else saved.url
    if days is None:
        days = RETENTION_DAYS if saved is None else saved.retention_days
    return RecordsBlock(url=url, retention_days=days)


async def _stale(client: PrefectClient, before: BlockDocument | None, kept: Collection[str]) -> list[BlockDocument]:
    """The logins of the inventory as it was saved before, without those that it still has."""
    if before is None:
        return []
    try:
        serves = _serves(Inventory.model_validate(before.data["inventory"]))
    except ValidationError:
        return []  # saved by a version with other fields: what its logins were can't be told
    found = await read(client, Login, serves.keys() - set(kept))
    return [document for name, document in found.items() if document.data.get("serves") == serves[name]]


def read_environment_file(text: str) -> dict[str, str]:
    """The variables of KEY=value lines. ConfigurationError names the line that is none, without its content."""
    variables: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigurationError(f"line {binding.original.line} of the environment file: write NAME=value")
        if binding.key is not None and binding.value is not None:
            variables[binding.key] = binding.value
    return variables


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not written in UTF-8, from byte {error.start} on") from None


def _require_server() -> None:
    """ConfigurationError where no server is named: Prefect would start one for just this command, and save where no worker looks."""
    if not PREFECT_API_URL.value():
        raise ConfigurationError("PREFECT_API_URL is not set; run: prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with every problem on stderr, and nothing saved."""
    parser = argparse.ArgumentParser(prog="python -m blocks.register", description="Save an inventory and its logins as Prefect blocks.")
    parser.add_argument("inventory", type=Path, help="YAML file; blocks/inventory.example.yaml explains its fields")
    parser.add_argument("--env-file", type=Path, help="lines of NAME=value; they go before the environment")
    options = parser.parse_args(arguments)
    try:
        environment = dict(os.environ)
        if options.env_file is not None:
            environment |= read_environment_file(_text_of(options.env_file))
        registration = parse_inventory(_text_of(options.inventory), environment)
        _require_server()
        saved = asyncio.run(register(registration))
    except ConfigurationError as error:
        print(f"{options.inventory} was not registered:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2
    except httpx.HTTPError as error:
        print(f"Prefect's API failed: {type(error).__name__}: {error}; is the server running at PREFECT_API_URL?", file=sys.stderr)
        return 1
    count = len(registration.inventory.resources)
    told = f"{saved.written} block(s) and automation(s) written, {saved.deleted} deleted"
    if saved != Saved(0, 0):
        told += "; it counts from each flow's next run on"
    print(f"{registration.inventory.name}: {count} resource(s) registered; {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
