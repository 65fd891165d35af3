"""Reading over MCP, and who is kept out: the server as its command runs it, in both eras of the protocol."""

import json
from datetime import UTC, datetime

import httpx
import pytest
from fastmcp.exceptions import ToolError
from mcp import types as protocol
from mcp.shared.exceptions import MCPError

from blocks.schema import Risk
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.connecting import Live
from tests.flows.cache_fault import connect, empty, fill, maxmemory_mib
from tests.flows.mcp_serving import LEGACY, MODERN, TOKEN, client

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer another-token-of-somebody"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "host": "evil.example"}, 421),
        ({"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1.evil.example:80"}, 421),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://evil.example"}, 403),
        ({"authorization": f"Bearer {TOKEN}", "origin": "null"}, 403),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
def test_who_has_no_token_or_names_another_host_or_origin_is_refused(served: str, headers: dict[str, str], status: int) -> None:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    wanted = {"accept": "application/json, text/event-stream", **headers}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    answer = httpx.post(served, json=body, headers=wanted, trust_env=False, timeout=30)
    assert answer.status_code == status
    assert ("evenkeel" in answer.text) is (status == 200)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_the_whole_catalogue_is_offered_and_what_only_reads_is_free(served: str, mode: str, lab: LabDescription) -> None:
    catalog = load_catalog()
    async with client(served, mode) as free:
        tools = {tool.name: tool for tool in await free.list_tools()}
        assert tools.keys() == catalog.tools.keys() | {"evenkeel_status", "evenkeel_fixes"}
        for name, declared in catalog.tools.items():
            shown, reads = tools[name], declared.risk is Risk.READ_ONLY
            assert shown.annotations is not None
            assert (shown.annotations.read_only_hint, shown.annotations.destructive_hint) == (
                reads,
                declared.risk in {Risk.DISRUPTIVE, Risk.DESTRUCTIVE},
            )
            assert declared.summary in str(shown.description)
            assert shown.output_schema is not None
            own = {"resource"} if reads else {"resource", "why"}
            assert shown.input_schema["properties"].keys() == declared.args_model.model_fields.keys() | own
            assert set(shown.input_schema["required"]) >= own
        assert tools["redis_info"].input_schema["properties"]["resource"]["enum"] == ["shop-cache"]

        read = (await free.call_tool("redis_info", {"resource": "shop-cache"})).structured_content
        async with connect(lab) as redis:
            assert read is not None
            assert read["resource"] == "shop-cache"
            assert read["read"]["keys"] == pytest.approx(await redis.dbsize(), abs=50)
        status = (await free.call_tool("evenkeel_status", {})).structured_content
        assert status is not None
        assert {one["resource"] for one in status["resources"]} == {"shop-db", "shop-cache", "shop-web", "shop-app"}

        with pytest.raises(ToolError, match=r"resource: is no redis resource of 'lab'; known: shop-cache; lines: "):
            await free.call_tool("redis_info", {"resource": "shop-db", "lines": 1})
        with pytest.raises(ToolError, match="no 'nobody' in inventory 'lab'"):
            await free.call_tool("evenkeel_status", {"resource": "nobody"})


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_inventory_status_and_fixes_are_resources_and_an_incident_is_a_prompt(served: str, mode: str, lab: LabDescription) -> None:
    async with client(served, mode) as free:
        texts = {str(one.uri): (await free.read_resource(one.uri))[0].text for one in await free.list_resources()}  # type: ignore[union-attr]
        assert texts.keys() == {"evenkeel://inventory", "evenkeel://status", "evenkeel://fixes"}
        assert {one["name"] for one in json.loads(texts["evenkeel://inventory"])["resources"]} >= {"shop-db", "shop-cache"}
        secrets = [login.password for login in (*lab.database.logins.values(), *lab.cache.logins.values())]
        assert not [text for text in texts.values() for secret in (*secrets, TOKEN) if secret in text]
        (one,) = await free.read_resource("evenkeel://status/shop-cache")
        assert [found["resource"] for found in json.loads(one.text)["resources"]] == ["shop-cache"]  # type: ignore[union-attr]
        offered = await free.complete(protocol.PromptReference(name="incident"), {"name": "resource", "value": "shop-c"})
        assert offered.values == ["shop-cache"]
        said = (await free.get_prompt("incident", {"resource": "shop-cache"})).messages[0].content
        assert isinstance(said, protocol.TextContent)
        assert "shop-cache (redis, role cache) is HEALTHY" in said.text
        assert "- redis_info" in said.text


async def test_a_client_that_can_ask_nobody_changes_nothing(served: str, opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    call = {"resource": "shop-cache", "mebibytes": 96, "why": "it is nearly full"}
    try:
        async with client(served, LEGACY) as unable:
            with pytest.raises(ToolError, match="can't ask a person"):
                await unable.call_tool("redis_set_maxmemory", call)
        async with client(served, MODERN) as unable:
            with pytest.raises(MCPError, match="can't ask a person") as caught:
                await unable.call_tool("redis_set_maxmemory", call)
        assert caught.value.error.code == protocol.MISSING_REQUIRED_CLIENT_CAPABILITY
    finally:
        await empty(lab)
    assert await maxmemory_mib(lab) == 64
    assert await opened.records.history(inventory="lab", since=since) == []
