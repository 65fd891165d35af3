"""The MCP server as the command that people start, over HTTP and stdio, in both eras of the protocol, on a real cache."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp import types as protocol
from mcp.shared.exceptions import MCPError
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.mcp_access import save_mcp
from blocks.mcp_section import McpAccess
from blocks.schema import Autonomy, Risk
from compose.control_plane import ControlPlane
from compose.description import LabDescription, free_ports
from tasks.catalog import load_catalog
from tasks.connecting import Live
from tasks.context import first_incident
from tasks.core.models import FixRecord, Verdict
from tests.flows.cache_fault import connect, empty, fill, inventory_with, maxmemory_mib

ROOT = Path(__file__).parent.parent.parent
TOKEN = "a-token-of-the-mcp-tests"
SECONDS = 60.0
LEGACY, MODERN = "legacy", "2026-07-28"
RAISE = {"resource": "shop-cache", "mebibytes": 96, "why": "it is nearly full, and its limit has room"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> Iterator[str]:
    """URL of the lab's MCP server, run by its command."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"

    async def save(access: McpAccess | None) -> None:
        with temporary_settings(updates={PREFECT_API_URL: control_plane.api_url}):
            async with get_client() as client:
                await save_mcp(client, "lab", access)

    asyncio.run(save(McpAccess(listen=listen, token=SecretStr(TOKEN))))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.mcp_serve", "--inventory", "lab", "--http"],
        cwd=ROOT,
        env=control_plane.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://{listen}/mcp"
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                assert httpx.post(url, trust_env=False).status_code == 401
                break
            except httpx.ConnectError:
                assert process.poll() is None, f"it ended with {process.returncode}"
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        asyncio.run(save(None))


@dataclass
class Person:
    """Who answers the questions, and what was asked."""

    answer: Any
    asked: list[str] = field(default_factory=list)

    async def __call__(self, message: str, _form: Any, _params: Any, _context: Any) -> Any:
        self.asked.append(message)
        return self.answer


def approving(comment: str = "") -> Person:
    return Person({"answer": "approve", "comment": comment})


@asynccontextmanager
async def client(url: str, mode: str, person: Person | None = None) -> AsyncIterator[Client[Any]]:
    who = protocol.Implementation(name="the tests", version="1")
    async with Client(StreamableHttpTransport(url, auth=TOKEN), mode=mode, elicitation_handler=person, client_info=who) as found:
        yield found


def cautiously(opened: Live, **rules: Any) -> Any:
    """The inventory with a cache of which every change asks a person."""
    return inventory_with(opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE}), **rules)


async def records_since(opened: Live, since: datetime) -> list[FixRecord]:
    return await opened.records.history(inventory="lab", since=since)


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
        said = (await free.get_prompt("incident", {"resource": "shop-cache"})).messages[0].content
        assert isinstance(said, protocol.TextContent)
        assert "shop-cache (redis, role cache) is HEALTHY" in said.text
        assert "- redis_info" in said.text


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_a_client_that_can_ask_nobody_changes_nothing(served: str, mode: str, opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    try:
        async with client(served, mode) as free:
            with pytest.raises(ToolError, match="can't ask a person"):
                await free.call_tool("redis_set_maxmemory", RAISE)
    finally:
        await empty(lab)
    assert await maxmemory_mib(lab) == 64
    assert await records_since(opened, since) == []


async def raised(url: str, mode: str, person: Person, **arguments: Any) -> protocol.CallToolResult:
    """The answer to a call that raises the cache's limit."""
    async with client(url, mode, person) as asking:
        return await asking.call_tool_mcp("redis_set_maxmemory", {**RAISE, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_what_a_person_approves_is_done_validated_and_recorded(served: str, mode: str, opened: Live, lab: LabDescription) -> None:
    person = approving("go on")
    await fill(lab, 96)
    try:
        async with cautiously(opened):
            answer = await raised(served, mode, person)
    finally:
        await empty(lab)
    assert not answer.is_error, answer.content
    assert await maxmemory_mib(lab) == 96
    (question,) = person.asked
    for told in (
        "the tests wants to run redis_set_maxmemory on shop-cache",
        "It is DEGRADED: memory",
        '"mebibytes":96',
        RAISE["why"],
        "autonomy",
    ):
        assert str(told) in question
    called = answer.structured_content
    assert called is not None
    assert (called["verdict"], called["health"]) == ("Completed", "HEALTHY")
    assert [(one["tool"], one["before"]["maxmemory_mib"], one["after"]["maxmemory_mib"]) for one in called["steps"]] == [
        ("redis_set_maxmemory", 64, 96)
    ]
    record = await opened.records.get(called["fix"])
    assert record is not None
    assert (record.verdict, record.planner) == (Verdict.COMPLETED, "mcp: the tests")
    assert record.attempts[0].comment == "approved by a person over MCP: go on"
    assert record.attempts[0].plan.reasoning == RAISE["why"]
    async with get_client() as prefect:
        run = await prefect.read_flow_run(UUID(called["flow_run"].rpartition("/")[2]))
    assert (run.name, run.state_name) == ("the tests: redis_set_maxmemory on shop-cache", "Completed")
    assert {"mcp", "shop-cache"} <= set(run.tags)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        (LEGACY, {"answer": "reject", "comment": "not while the sale is on"}),
        (LEGACY, ElicitResult(action="decline")),
        (MODERN, ElicitResult(action="cancel")),
        (MODERN, {"answer": "reject", "comment": "not while the sale is on"}),
    ],
)
async def test_what_a_person_declines_is_not_done(served: str, mode: str, answer: Any, opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    try:
        async with cautiously(opened):
            told = await raised(served, mode, Person(answer))
    finally:
        await empty(lab)
    assert told.is_error
    assert told.structured_content is not None
    assert (told.structured_content["verdict"], told.structured_content["fix"]) == ("Declined", None)
    assert await maxmemory_mib(lab) == 64
    assert await records_since(opened, since) == []


@pytest.mark.slow
async def test_what_does_not_help_is_taken_back(served: str, opened: Live, lab: LabDescription) -> None:
    person = approving()
    await fill(lab, 96)
    try:
        async with inventory_with(recover_seconds=0.5):
            answer = await raised(served, MODERN, person, mebibytes=64.1)
        assert await maxmemory_mib(lab) == 64
    finally:
        await empty(lab)
    assert person.asked == []  # the policy allows it by itself
    assert answer.is_error
    assert answer.structured_content is not None
    assert [(one["undoes"], one["status"]) for one in answer.structured_content["steps"]] == [(False, "done"), (True, "done")]
    # A client's failure keeps nobody from healing it.
    assert await opened.records.escalations("lab", datetime.now(UTC) - timedelta(minutes=5)) == {}


async def test_what_the_policy_denies_is_refused_and_a_resource_under_remediation_is_left_alone(
    served: str, opened: Live, lab: LabDescription
) -> None:
    since = datetime.now(UTC)
    denied = await raised(served, MODERN, approving())
    assert denied.is_error
    assert denied.structured_content is not None
    assert denied.structured_content["verdict"] == "Refused"
    assert "measured is nothing wrong" in denied.structured_content["message"]
    async with get_client() as prefect:
        run = await prefect.read_flow_run(UUID(denied.structured_content["flow_run"].rpartition("/")[2]))
    assert (run.state_name, run.name) == ("Refused", "the tests: redis_set_maxmemory on shop-cache")
    assert await records_since(opened, since) == []

    await fill(lab, 96)
    incident, observation = await first_incident(opened, opened.inventory.resource("shop-cache"))
    assert incident is not None
    other = FixRecord(id=incident.id, incident=incident, before=observation, opened_at=incident.opened_at)
    assert await opened.records.open_fix(other, "another process", datetime.now(UTC))
    try:
        busy = await raised(served, LEGACY, approving())
    finally:
        assert await opened.records.close_fix(other, "another process", Verdict.NO_ACTION_NEEDED, "the test is over", datetime.now(UTC))
        await empty(lab)
    assert busy.is_error
    assert "another remediation of shop-cache is under way" in str(busy.content)
    assert await maxmemory_mib(lab) == 64


async def test_an_answer_counts_once_and_only_for_what_was_asked(served: str, opened: Live, lab: LabDescription) -> None:
    yes = {"approval": protocol.ElicitResult(action="accept", content={"answer": "approve", "comment": ""})}
    no = {"approval": protocol.ElicitResult(action="accept", content={"answer": "reject", "comment": ""})}
    await fill(lab, 96)
    try:
        async with cautiously(opened), client(served, MODERN, approving()) as asking:
            call = partial(asking.session.call_tool, "redis_set_maxmemory", allow_input_required=True)
            # An approval that nobody asked for is none.
            asked: list[Any] = [await call(RAISE), await call(RAISE, input_responses=yes)]
            states = [one.request_state for one in asked]
            assert len(set(states)) == 2
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await call({**RAISE, "mebibytes": 120}, input_responses=yes, request_state=states[0])
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await call(RAISE, input_responses=yes, request_state=str(states[0])[:-2])
            declined = await call(RAISE, input_responses=no, request_state=states[0])
            assert "Declined" in str(declined)
            again = await call(RAISE, input_responses=yes, request_state=states[0])
            assert "answered already" in str(again)
    finally:
        await empty(lab)
    assert await maxmemory_mib(lab) == 64


@pytest.mark.slow
async def test_over_stdio_it_is_the_same(opened: Live, lab: LabDescription, prefect_server: ControlPlane) -> None:
    command = ["-m", "flows.mcp_serve", "--inventory", "lab"]
    transport = StdioTransport(sys.executable, command, cwd=str(ROOT), env=prefect_server.environment, keep_alive=False)
    person = approving()
    await fill(lab, 96)
    try:
        async with cautiously(opened), Client(transport, elicitation_handler=person) as asking:
            assert len(await asking.list_tools()) > len(load_catalog().tools)
            answer = await asking.call_tool_mcp("redis_set_maxmemory", RAISE)
    finally:
        await empty(lab)
    assert not answer.is_error, answer.content
    assert len(person.asked) == 1
    assert await maxmemory_mib(lab) == 96
