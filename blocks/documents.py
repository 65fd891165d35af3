"""Many blocks of one type at once: a request for two hundred, where loading them singly takes one each.

`Block.load` also emits an event a block, which a monitor that starts each minute would add up to a flood.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
from prefect.client.schemas.objects import BlockDocument

NAMES_A_REQUEST = 200  # the server's own limit of one answer
REQUESTS_AT_ONCE = 2  # the server works on one at a time, for 50 ms each


async def read(client: PrefectClient, kind: type[Block], names: Collection[str]) -> dict[str, BlockDocument]:
    """The saved blocks of these names with their secrets, by name; one that is not saved is left out."""
    wanted = sorted(names)
    found: dict[str, BlockDocument] = {}
    for first in range(0, len(wanted), NAMES_A_REQUEST):
        query = {
            "block_documents": {"name": {"any_": wanted[first : first + NAMES_A_REQUEST]}, "is_anonymous": {"eq_": False}},
            "block_types": {"slug": {"any_": [kind.get_block_type_slug()]}},
            "include_secrets": True,
            "limit": NAMES_A_REQUEST,
        }
        response = await client.request("POST", "/block_documents/filter", json=query)
        documents = [BlockDocument.model_validate(document) for document in response.json()]
        found |= {document.name: document for document in documents if document.name is not None}
    return found


async def write(client: PrefectClient, blocks: Mapping[str, Block]) -> int:
    """Save blocks of one type under their names where they differ from what is saved. Returns how many did."""
    if not blocks:
        return 0
    saved = await read(client, type(next(iter(blocks.values()))), blocks)
    contents = {name: _content(block) for name, block in blocks.items()}
    changed = [name for name in blocks if name not in saved or _differ(saved[name].data, contents[name])]
    if not changed:
        return 0
    # The first is saved by Prefect's own means, which register the type; the rest copy its type and schema.
    document = await client.read_block_document(await blocks[changed[0]].asave(changed[0], overwrite=True, client=client))
    room = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def save(name: str) -> None:
        schema_id, data = document.block_schema_id, contents[name]
        async with room:
            if name in saved:
                change = BlockDocumentUpdate(block_schema_id=schema_id, data=data, merge_existing_data=False)
                await client.update_block_document(saved[name].id, change)
            else:
                new = BlockDocumentCreate(name=name, data=data, block_schema_id=schema_id, block_type_id=document.block_type_id)
                await client.create_block_document(new)

    async with asyncio.TaskGroup() as group:
        for name in changed[1:]:
            group.create_task(save(name))
    return len(changed)


def _content(block: Block) -> dict[str, Any]:
    everything = block.model_dump(mode="json", context={"include_secrets": True})
    return {name: everything[name] for name in type(block).model_fields}


def _differ(saved: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    return any(name not in saved or saved[name] != value for name, value in content.items())
