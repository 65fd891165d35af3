"""Where the records are kept, as a block: one for all inventories, so that they share one lock."""

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from pydantic import Field, SecretStr

from blocks.documents import read
from blocks.errors import ConfigurationError

RECORDS = "evenkeel"
RETENTION_DAYS = 90.0


class RecordsBlock(Block):
    """The records' database and how long they are kept."""

    _block_type_name = "Evenkeel Records"
    _block_type_slug = "evenkeel-records"

    url: SecretStr = Field(description="SQLAlchemy URL: sqlite+aiosqlite:////path or postgresql+asyncpg://...")
    retention_days: float = Field(RETENTION_DAYS, gt=0, description="Age at which closed fixes may be deleted, in days.")


async def load_records() -> RecordsBlock:
    """The saved block. ConfigurationError if there is none."""
    async with get_client() as client:
        document = (await read(client, RecordsBlock, [RECORDS])).get(RECORDS)
    if document is None:
        raise ConfigurationError("records: no database is saved; register an inventory: python -m blocks.register inventory.yaml")
    return RecordsBlock.model_validate(document.data)


async def load_records_url() -> str:
    """The database's URL, with its password."""
    return (await load_records()).url.get_secret_value()


async def load_retention_days() -> float:
    """How long closed fixes are kept, in days."""
    return (await load_records()).retention_days
