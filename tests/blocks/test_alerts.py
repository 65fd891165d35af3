"""The section `alerts` of an inventory file, saved in a real Prefect server."""

import uuid

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks.alerts import AlertsBlock, load_alerts
from blocks.alerts_section import LISTEN, Alerts
from blocks.documents import read
from blocks.errors import ConfigurationError
from blocks.inventory_file import Registration, parse_inventory
from blocks.register import Saved, register

TOKEN = "a-token-that-nobody-may-see"
ENVIRONMENT = {"TOKEN": TOKEN, "SHORT": "too-short", "SPACED": "a token with some spaces"}


def parsed(section: str = "", name: str = "shop") -> Registration:
    text = f"name: {name}\nresources:\n  - {{name: api, kind: http, address: 'http://127.0.0.1:1/'}}\n{section}"
    return parse_inventory(text, ENVIRONMENT)


def test_without_the_section_no_alerts_are_received() -> None:
    assert parsed().alerts is None
    assert parsed("alerts: null").alerts is None
    found = parsed("alerts: {token: '${TOKEN}'}").alerts
    assert isinstance(found, Alerts)
    assert found.listen == LISTEN
    assert TOKEN not in repr(parsed("alerts: {token: '${TOKEN}'}"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("alerts: {}", "line 4: alerts.token: is missing; add it"),
        ("alerts: 5", "line 4: alerts: "),
        (f"alerts: {{token: {TOKEN}}}", "line 4: alerts.token: a secret in plain text; write ${"),
        ("alerts: {token: '${NOBODY}'}", "line 4: alerts.token: the environment variable NOBODY is not set"),
        ("alerts: {token: '${SHORT}'}", "line 4: alerts.token: the variable has to hold at least 16 printable characters"),
        ("alerts: {token: '${SPACED}'}", "line 4: alerts.token: the variable has to hold"),
        ("alerts: {token: '${TOKEN}', listen: nowhere}", "line 4: alerts.listen: write host:port, such as 127.0.0.1:9095"),
        ("alerts: {token: '${TOKEN}', listen: '127.0.0.1:70000'}", "line 4: alerts.listen: write host:port"),
        ("alerts: {token: '${TOKEN}', listne: x}", "alerts.listne: no such field; did you mean 'listen'?"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_field(section: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed(section)
    (problem,) = caught.value.problems
    assert said in problem
    assert not any(secret in problem for secret in ENVIRONMENT.values())


@pytest.mark.usefixtures("prefect_server")
async def test_it_is_saved_loaded_and_forgotten_with_the_inventory() -> None:
    name = f"shop-{uuid.uuid4().hex[:12]}"
    section = "alerts: {token: '${TOKEN}', listen: '[::1]:9000'}"
    assert await load_alerts(name) is None
    await register(parsed(section, name))
    found = await load_alerts(name)
    assert found is not None
    assert (found.listen, found.token.get_secret_value()) == ("[::1]:9000", TOKEN)
    async with get_client() as client:
        document = (await read(client, AlertsBlock, [name]))[name]
        shown = await client.read_block_documents_by_type(AlertsBlock.get_block_type_slug(), include_secrets=False)
        assert TOKEN not in repr([one.data for one in shown])
        edited = BlockDocumentUpdate(data={**document.data, "listen": "nowhere"}, merge_existing_data=False)
        await client.update_block_document(document.id, edited)
    with pytest.raises(ConfigurationError, match=r"listen.*edit the Evenkeel Alerts block"):
        await load_alerts(name)
    assert (await register(parsed(section, name))).written == 1
    assert await register(parsed("", name)) == Saved(written=0, deleted=1)
    assert await load_alerts(name) is None
