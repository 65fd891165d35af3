"""Gemini, asked again: with another model or other instructions, and on an account of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blocks.gemini import GeminiBlock
from blocks.schema import Rules
from tasks.catalog import Catalog
from tasks.connecting import access_of
from tasks.core.prompts import SYSTEM
from tasks.planners.fallback import Logger, MeteredModel
from tasks.planners.gemini import GeminiPlanner
from tasks.planners.gemini_client import GeminiClient
from tasks.planners.investigation import Read
from tasks.records.repository import Records
from tasks.replaying.again import OpenModel


@asynccontextmanager
async def replay_model(
    block: GeminiBlock, catalog: Catalog, records: Records, *, account: str, model: str, instructions: str, logger: Logger
) -> AsyncIterator[OpenModel]:
    """What opens the model for a question, on an account of its own: whoever acts neither pays for it nor pauses because of it.

    `model` and `instructions` stand in place of the block's and the project's, unless empty.
    """
    settings = block.settings.model_copy(update={"model": model} if model else {})
    client = GeminiClient(settings, access_of(block))

    def open_model(rules: Rules, read: Read) -> MeteredModel:
        return MeteredModel(
            settings=settings,
            open_model=lambda: GeminiPlanner(client, catalog, rules, read, instructions or SYSTEM),
            records=records,
            account=account,
            logger=logger,
        )

    try:
        yield open_model
    finally:
        await client.close()
