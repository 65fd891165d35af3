"""Gemini as a block: how an inventory's plans are made, and the key for it."""

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from pydantic import Field, SecretStr, ValidationError

from blocks.documents import read, write
from blocks.errors import ConfigurationError
from blocks.gemini_section import Gemini
from blocks.gemini_settings import GeminiSettings


class GeminiBlock(Block):
    """Lets Gemini plan for the inventory of the same name; without it, runbooks do. Saved by `python -m blocks.register`."""

    _block_type_name = "Evenkeel Gemini"
    _block_type_slug = "evenkeel-gemini"

    settings: GeminiSettings = Field(description="Model, limits of time, and budgets.")
    api_key: SecretStr | None = Field(None, description="Key of the Gemini Developer API.")
    service_account: SecretStr | None = Field(
        None, description="For Vertex AI: JSON of a service account's key file; none: the machine's own credentials."
    )


async def save_gemini(client: PrefectClient, inventory: str, gemini: Gemini | None) -> tuple[int, int]:
    """Save how the inventory's plans are made, or forget it. Returns how many blocks that wrote and deleted."""
    if gemini is not None:
        block = GeminiBlock(settings=gemini.settings, api_key=gemini.api_key, service_account=gemini.service_account)
        return await write(client, {inventory: block}), 0
    saved = await read(client, GeminiBlock, [inventory])
    for document in saved.values():
        await client.delete_block_document(document.id)
    return 0, len(saved)


async def load_gemini(inventory: str) -> GeminiBlock | None:
    """The inventory's block, or None where runbooks plan. ConfigurationError if it was edited into something invalid."""
    async with get_client() as client:
        document = (await read(client, GeminiBlock, [inventory])).get(inventory)
    if document is None:
        return None
    try:
        return GeminiBlock.model_validate(document.data)
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors(include_input=False)]
        remedy = f"edit the Evenkeel Gemini block {inventory!r} in the UI, or register the YAML file again"
        raise ConfigurationError([f"gemini {inventory!r}: {field}: {said}; {remedy}" for field, said in problems]) from None
