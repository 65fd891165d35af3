"""Remediation of real faults on real servers, judged by queries of the test's own."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import psycopg
import psycopg.sql
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from blocks.schema import Autonomy, Kind
from compose.control_plane import ControlPlane
from compose.description import LabDescription
from flows.remediate import remediate
from flows.reset import reset
from tasks import connecting
from tasks.connecting import Live
from tasks.core.declare import Remedy, Runbook
from tasks.core.models import Context, FixRecord, OutcomeStatus, Step, Verdict
from tasks.execution import StoppedError, call_tool
from tests.flows.cache_fault import empty, fill, inventory_with, maxmemory_mib

pytestmark = pytest.mark.timeout(120)


async def only_record(opened: Live, since: datetime) -> FixRecord:
    records = await opened.records.history(inventory="lab", since=since, limit=10)
    assert len(records) == 1
    return records[0]


async def heal(resource: str, **parameters: Any) -> State[Any]:
    state: State[Any] = await remediate(resource, return_state=True, **parameters)
    return state


async def heal_afresh(resource: str) -> State[Any]:
    """As in a process of its own: `opened` still holds the inventory as it was."""
    token = connecting._current.set(None)
    try:
        return await heal(resource)
    finally:
        connecting._current.reset(token)


async def test_a_full_cache_is_healed_and_everything_is_recorded(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    assert await fill(lab, 96) >= 96
    try:
        state = await heal("shop-cache")
        assert (state.name, state.is_completed()) == ("Completed", True)
        assert await maxmemory_mib(lab) > 64
        record = await only_record(opened, since)
        assert record.verdict is Verdict.COMPLETED
        assert record.after is not None
        assert record.before.reading.values["memory_percent"] >= 95 > record.after.reading.values["memory_percent"]  # type: ignore[operator]
        assert [one.step.tool for one in record.attempts[0].outcomes] == ["redis_set_maxmemory"]
        assert set(record.timings) >= {"planned", "executed", "healthy", "settled"}
        assert record.planner.startswith("runbook")
        assert record.closed_at is not None
    finally:
        await empty(lab)


async def test_the_run_and_its_tasks_are_named_for_people(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    try:
        await heal("shop-cache")
        record = await only_record(opened, since)
        async with get_client() as client:
            run = await client.read_flow_run(record.flow_run_id)  # type: ignore[arg-type]
            assert run.name == "Heal shop-cache (by hand)"
            names: set[str] = set()
            for _ in range(100):
                ids = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
                names = {task.name for task in await client.read_task_runs(flow_run_filter=ids)}
                if "redis_set_maxmemory on shop-cache" in names:
                    break
                await asyncio.sleep(0.1)
            assert {"gather context of shop-cache", "plan for shop-cache", "redis_set_maxmemory on shop-cache"} <= names
    finally:
        await empty(lab)


async def test_a_healthy_resource_is_left_alone(opened: Live) -> None:
    since = datetime.now(UTC)
    state = await heal("shop-db")
    assert (state.name, state.is_completed()) == ("NoActionNeeded", True)
    assert await opened.records.history(inventory="lab", since=since, limit=10) == []


async def test_two_remediations_of_one_resource_make_one_fix(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    try:
        states = await asyncio.gather(heal("shop-cache"), heal("shop-cache"))
        assert sorted(str(state.name) for state in states) == ["Completed", "NoActionNeeded"]
        assert any("another remediation" in str(state.message) for state in states)
        await only_record(opened, since)
    finally:
        await empty(lab)


async def test_an_unknown_resource_is_named_with_the_known_ones(prefect_server: object) -> None:
    with pytest.raises(ValueError, match="no 'nowhere' in inventory 'lab'; known: shop-"):
        await remediate("nowhere")


async def test_who_is_asked_about_a_resource_of_a_pool_is_asked_from_there(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    elsewhere = opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE, "pool": "berlin"})
    await fill(lab, 96)
    try:
        async with inventory_with(elsewhere):
            state = await heal_afresh("shop-cache")
        assert state.name == "Escalated"
        remedy = "EVENKEEL_INVENTORY=lab EVENKEEL_POOL=berlin prefect --no-prompt deploy --prefect-file docs/pool.yaml --all"
        assert f"nobody could be asked: no deployment approve/berlin; run: {remedy}" in str(state.message)
        assert (await only_record(opened, since)).attempts[0].outcomes == ()
    finally:
        await empty(lab)


@pytest.mark.parametrize("autonomy", [Autonomy.OBSERVE, Autonomy.PROPOSE])
async def test_without_autonomy_nothing_is_touched_and_the_plan_is_shown(opened: Live, lab: LabDescription, autonomy: Autonomy) -> None:
    since = datetime.now(UTC)
    cautious = opened.inventory.resource("shop-cache").model_copy(update={"autonomy": autonomy})
    await fill(lab, 96)
    try:
        async with inventory_with(cautious):
            state = await heal_afresh("shop-cache")
        assert (state.name, state.is_failed()) == ("Escalated", True)
        assert "redis_set_maxmemory" in str(state.message)
        assert await maxmemory_mib(lab) == 64
        record = await only_record(opened, since)
        assert record.attempts[0].outcomes == ()
    finally:
        await empty(lab)


async def test_a_dry_run_shows_what_the_policy_would_say_and_executes_nothing(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await fill(lab, 96)
    try:
        state = await heal("shop-cache", autonomy="propose")
        assert state.name == "Escalated"
        assert "otherwise: allow" in str(state.message)
        assert await maxmemory_mib(lab) == 64
        assert (await only_record(opened, since)).attempts[0].outcomes == ()
    finally:
        await empty(lab)


async def set_variable(variable: VariableCreate) -> None:
    async with get_client() as client:
        await client.create_variable(variable)


async def test_the_kill_switch_stops_every_change(opened: Live, lab: LabDescription) -> None:
    await fill(lab, 96)
    await set_variable(VariableCreate(name="evenkeel_stop", value="moving house"))
    try:
        state = await heal("shop-cache")
        assert state.name == "Escalated"
        assert "the kill switch is on: moving house" in str(state.message)
        with pytest.raises(StoppedError, match="moving house"):
            await call_tool(opened, Step(tool="redis_set_maxmemory", target="shop-cache", args={"mebibytes": 96}, why="to see"))
        assert await maxmemory_mib(lab) == 64
    finally:
        async with get_client() as client:
            await client.delete_variable_by_name("evenkeel_stop")
        await empty(lab)


def too_little(context: Context) -> Iterator[Remedy]:
    """A limit that is a little higher: plausible, and not enough."""
    step = Step(tool="redis_set_maxmemory", target=context.resource.name, args={"mebibytes": 64.1}, why="make room")
    yield Remedy(diagnosis="the limit is a little too small", steps=(step,), expected="memory_percent under its threshold")


async def test_a_fix_that_does_not_help_is_undone_and_escalated(prefect_server: ControlPlane, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    await reset()
    book = Runbook("too_little", Kind.REDIS, frozenset({"memory_high"}), "A little more", "Raise the limit a little.", too_little)
    await fill(lab, 96)
    try:
        async with connecting.live("lab") as own:
            own.catalog = replace(own.catalog, runbooks=MappingProxyType({book.name: book}))
            rules = own.inventory.rules.model_copy(update={"recover_seconds": 0.5})
            own.inventory = own.inventory.model_copy(update={"rules": rules})
            state = await heal("shop-cache")
            record = await only_record(own, since)
        assert state.name == "Escalated"
        assert record.verdict is Verdict.ESCALATED
        used = [(one.step.tool, one.undoes, one.status) for attempt in record.attempts for one in attempt.outcomes]
        assert used == [
            ("redis_set_maxmemory", False, OutcomeStatus.DONE),
            ("redis_set_maxmemory", True, OutcomeStatus.DONE),
        ]
        assert record.attempts[0].outcomes[-1].message == "the state is back"
        assert record.attempts[0].restored is not None
        assert await maxmemory_mib(lab) == 64
    finally:
        await empty(lab)
        await reset()


async def test_no_password_is_stored_or_logged(opened: Live, lab: LabDescription, prefect_server: ControlPlane) -> None:
    await fill(lab, 96)
    try:
        assert (await heal("shop-cache")).name == "Completed"
        await heal("shop-db")
    finally:
        await empty(lab)
    passwords = [login.password for server in (lab.database, lab.cache) for login in server.logins.values()]
    files = [*prefect_server.directory.rglob("*.log"), *lab.directory.glob("records.db*"), *lab.directory.glob("log/*.log")]
    assert len(files) >= 5
    for path in files:
        content = path.read_bytes()
        assert not any(password.encode() in content for password in passwords), path.name
    url = prefect_server._database_url.replace("postgresql+asyncpg://", "postgresql://")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [row[0] for row in await found.fetchall()]
        assert "artifact" in tables
        for table in tables:
            query = psycopg.sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text LIKE ANY(%s)").format(psycopg.sql.Identifier(table))
            row = await (await connection.execute(query, ([f"%{password}%" for password in passwords],))).fetchone()
            assert row == (0,), table
