"""Where alerts are received, as a block: one of each inventory that has a section `alerts`."""

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from pydantic import Field, SecretStr, ValidationError

from blocks.alerts_section import Alerts
from blocks.documents import read, write
from blocks.errors import ConfigurationError


class AlertsBlock(Block):
    """Lets the watcher of the inventory of the same name receive alerts. Saved by `python -m blocks.register`."""

    _block_type_name = "Evenkeel Alerts"
    _block_type_slug = "evenkeel-alerts"

    listen: str = Field(description="host:port")
    token: SecretStr = Field(description="What whoever posts alerts has to show as a bearer token.")


async def save_alerts(client: PrefectClient, inventory: str, alerts: Alerts | None) -> tuple[int, int]:
    """Save where the inventory's alerts are received, or forget it. Returns how many blocks that wrote and deleted."""
    if alerts is not None:
        return await write(client, {inventory: AlertsBlock(listen=alerts.listen, token=alerts.token)}), 0
    saved = await read(client, AlertsBlock, [inventory])
    for document in saved.values():
        await client.delete_block_document(document.id)
    return 0, len(saved)


async def load_alerts(inventory: str) -> Alerts | None:
    """The inventory's block, or None where it receives no alerts. ConfigurationError if it was edited into something invalid."""
    async with get_client() as client:
        document = (await read(client, AlertsBlock, [inventory])).get(inventory)
    if document is None:
        return None
    try:
        return Alerts.model_validate({name: document.data.get(name) for name in Alerts.model_fields})
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors(include_input=False)]
        remedy = f"edit the Evenkeel Alerts block {inventory!r} in the UI, or register the YAML file again"
        raise ConfigurationError([f"alerts {inventory!r}: {field}: {said}; {remedy}" for field, said in problems]) from None
