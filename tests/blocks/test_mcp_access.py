"""The section `mcp` of an inventory file, saved in a real Prefect server."""

import uuid

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks.documents import read
from blocks.errors import ConfigurationError
from blocks.inventory_file import Registration, parse_inventory
from blocks.mcp_access import McpBlock, load_mcp
from blocks.mcp_section import LISTEN
from blocks.register import Saved, register
from blocks.schema import Autonomy

TOKEN = "a-token-that-nobody-may-see"
ENVIRONMENT = {"TOKEN": TOKEN, "SHORT": "too-short"}


def parsed(section: str = "", name: str = "shop") -> Registration:
    text = f"name: {name}\nresources:\n  - {{name: api, kind: http, address: 'http://127.0.0.1:1/'}}\n{section}"
    return parse_inventory(text, ENVIRONMENT)


def test_without_the_section_there_is_no_access_by_http() -> None:
    assert parsed().mcp is None
    found = parsed("mcp: {token: '${TOKEN}'}").mcp
    assert found is not None
    assert (found.listen, found.hosts, found.origins, found.autonomy) == (LISTEN, (), (), None)
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("mcp: {}", "line 4: mcp.token: is missing; add it"),
        (f"mcp: {{token: {TOKEN}}}", "line 4: mcp.token: a secret in plain text; write ${MCP_TOKEN}"),
        ("mcp: {token: '${SHORT}'}", "line 4: mcp.token: the variable has to hold at least 16 printable characters"),
        ("mcp: {token: '${TOKEN}', listen: nowhere}", "line 4: mcp.listen: write host:port, such as 127.0.0.1:9096"),
        ("mcp: {token: '${TOKEN}', hosts: ['*']}", "line 4: mcp.hosts: '*' is no host name; write it without scheme"),
        ("mcp: {token: '${TOKEN}', hosts: ['a.example:80']}", "line 4: mcp.hosts: 'a.example:80' is no host name"),
        ("mcp: {token: '${TOKEN}', origins: ['https://*']}", "line 4: mcp.origins: 'https://*' is no origin; write scheme, host"),
        ("mcp: {token: '${TOKEN}', autonomy: always}", "line 4: mcp.autonomy: "),
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
    section = "mcp: {token: '${TOKEN}', hosts: [a.example], origins: ['https://b.example:8443'], autonomy: approve}"
    assert await load_mcp(name) is None
    await register(parsed(section, name))
    found = await load_mcp(name)
    assert found is not None
    assert (found.token.get_secret_value(), found.hosts, found.origins) == (TOKEN, ("a.example",), ("https://b.example:8443",))
    assert found.autonomy is Autonomy.APPROVE
    async with get_client() as client:
        document = (await read(client, McpBlock, [name]))[name]
        shown = await client.read_block_documents_by_type(McpBlock.get_block_type_slug(), include_secrets=False)
        assert TOKEN not in repr([one.data for one in shown])
        edited = BlockDocumentUpdate(data={**document.data, "listen": "nowhere"}, merge_existing_data=False)
        await client.update_block_document(document.id, edited)
    with pytest.raises(ConfigurationError, match=r"listen.*edit the Evenkeel MCP block"):
        await load_mcp(name)
    assert (await register(parsed(section, name))).written == 1
    assert await register(parsed("", name)) == Saved(written=0, deleted=1)
    assert await load_mcp(name) is None
