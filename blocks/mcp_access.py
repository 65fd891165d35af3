"""The access to the MCP server, as a block: one of each inventory that has a section `mcp`."""

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from pydantic import Field, SecretStr, ValidationError

from blocks.documents import read, write
from blocks.errors import ConfigurationError
from blocks.mcp_section import McpAccess
from blocks.schema import Autonomy


class McpBlock(Block):
    """Lets the inventory be read and acted on over MCP by HTTP. Saved by `python -m blocks.register`."""

    _block_type_name = "Evenkeel MCP"
    _block_type_slug = "evenkeel-mcp"

    listen: str = Field(description="host:port")
    token: SecretStr = Field(description="What a client has to show as a bearer token.")
    hosts: list[str] = Field(default_factory=list, description="Further host names under which the server is reached.")
    origins: list[str] = Field(default_factory=list, description="Origins of web pages that may call it.")
    autonomy: Autonomy | None = Field(None, description="How far calls may go; it can only lower what the rules say.")


async def save_mcp(client: PrefectClient, inventory: str, access: McpAccess | None) -> tuple[int, int]:
    """Save how the inventory is reached over MCP, or forget it. Returns how many blocks that wrote and deleted."""
    if access is not None:
        given = {name: getattr(access, name) for name in McpAccess.model_fields}
        return await write(client, {inventory: McpBlock.model_validate(given)}), 0
    saved = await read(client, McpBlock, [inventory])
    for document in saved.values():
        await client.delete_block_document(document.id)
    return 0, len(saved)


async def load_mcp(inventory: str) -> McpAccess | None:
    """The inventory's block, or None where it has none. ConfigurationError if it was edited into something invalid."""
    async with get_client() as client:
        document = (await read(client, McpBlock, [inventory])).get(inventory)
    if document is None:
        return None
    try:
        return McpAccess.model_validate({name: document.data[name] for name in McpAccess.model_fields if name in document.data})
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors(include_input=False)]
        remedy = f"edit the Evenkeel MCP block {inventory!r} in the UI, or register the YAML file again"
        raise ConfigurationError([f"mcp {inventory!r}: {field}: {said}; {remedy}" for field, said in problems]) from None
