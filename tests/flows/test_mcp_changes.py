"""Changes over MCP: policy, a person, the lock, validation and undo, looked at by connections of the tests' own to the real cache."""

from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from fastmcp.client.elicitation import ElicitResult
from mcp import types as protocol
from mcp.shared.exceptions import MCPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from compose.control_plane import ControlPlane
from compose.description import LabDescription
from tasks.connecting import Live
from tasks.context import first_incident
from tasks.core.models import FixRecord, Verdict
from tests.flows.cache_fault import empty, fill, inventory_with, maxmemory_mib
from tests.flows.mcp_serving import LEGACY, MODERN, NAME, Person, approving, cautiously, client, stdio

pytestmark = pytest.mark.timeout(180)
WHY = "it is nearly full, and its limit has room"
RAISE = {"resource": "shop-cache", "mebibytes": 96, "why": WHY}


async def run_of(called: dict[str, Any]) -> FlowRun:
    """The run that the answer names, as Prefect has it."""
    async with get_client() as prefect:
        return await prefect.read_flow_run(UUID(called["flow_run"].rpartition("/")[2]))


async def raised(url: str, mode: str, person: Person, **arguments: Any) -> protocol.CallToolResult:
    """The answer to a call that raises the cache's limit."""
    async with client(url, mode, person) as asking:
        return await asking.call_tool_mcp("redis_set_maxmemory", {**RAISE, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "mode", "no"),
    [
        ("http", LEGACY, ElicitResult(action="decline")),
        ("stdio", MODERN, {"answer": "reject", "comment": "not while the sale is on"}),
    ],
)
async def test_a_person_declines_and_then_approves(
    over: str, mode: str, no: Any, served: str, opened: Live, lab: LabDescription, prefect_server: ControlPlane
) -> None:
    since = datetime.now(UTC)
    person = Person(no)
    await fill(lab, 96)
    try:
        async with cautiously(opened), client(served if over == "http" else stdio(prefect_server), mode, person) as asking:
            declined = await asking.call_tool_mcp("redis_set_maxmemory", RAISE)
            assert declined.is_error
            assert declined.structured_content is not None
            assert (declined.structured_content["verdict"], declined.structured_content["fix"]) == ("Declined", None)
            assert await maxmemory_mib(lab) == 64
            assert await opened.records.history(inventory="lab", since=since) == []
            person.answer = {"answer": "approve", "comment": "go on"}
            answer = await asking.call_tool_mcp("redis_set_maxmemory", RAISE)
    finally:
        await empty(lab)
    assert not answer.is_error, answer.content
    assert await maxmemory_mib(lab) == 96
    question = person.asked[1]
    wanted = f"{NAME} wants to run redis_set_maxmemory on shop-cache"
    for told in (wanted, "It is DEGRADED: memory", '"mebibytes":96', WHY, "autonomy is approve", "redis_set_maxmemory takes it back"):
        assert told in question
    called = answer.structured_content
    assert called is not None
    assert (called["verdict"], called["health"]) == ("Completed", "HEALTHY")
    (step,) = called["steps"]
    assert (step["tool"], step["before"]["maxmemory_mib"], step["after"]["maxmemory_mib"]) == ("redis_set_maxmemory", 64, 96)
    record = await opened.records.get(called["fix"])
    assert record is not None
    assert (record.verdict, record.planner, record.attempts[0].plan.reasoning) == (Verdict.COMPLETED, f"mcp: {NAME}", WHY)
    assert record.attempts[0].comment == "approved by a person over MCP: go on"
    run = await run_of(called)
    assert (run.name, run.state_name) == (f"{NAME}: redis_set_maxmemory on shop-cache", "Completed")
    assert {"mcp", "shop-cache"} <= set(run.tags)


@pytest.mark.slow
async def test_what_does_not_help_is_taken_back(served: str, opened: Live, lab: LabDescription) -> None:
    person, since = approving(), datetime.now(UTC)
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
    assert await opened.records.escalations("lab", since) == {}


@pytest.mark.slow
async def test_what_the_policy_denies_is_refused_and_a_resource_under_remediation_is_left_alone(
    served: str, opened: Live, lab: LabDescription
) -> None:
    since = datetime.now(UTC)
    denied = await raised(served, MODERN, approving())
    assert denied.is_error
    assert denied.structured_content is not None
    assert denied.structured_content["verdict"] == "Refused"
    assert "measured is nothing wrong" in denied.structured_content["message"]
    assert (await run_of(denied.structured_content)).state_name == "Refused"
    assert await opened.records.history(inventory="lab", since=since) == []

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


@pytest.mark.slow
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
