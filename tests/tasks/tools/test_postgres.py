"""The PostgreSQL tools against a real server; what they did is asked over connections of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from blocks.schema import Limits
from compose.description import LabDescription
from tasks.clients.login import Login
from tasks.core.declare import NoArgs, ToolArgs
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change
from tasks.tools.postgres import ScaleConnections, postgres_restart, postgres_scale_connections
from tasks.tools.postgres_access import Grant, postgres_grant
from tasks.tools.postgres_backends import CancelQuery, TerminateBlocker, postgres_cancel_query, postgres_terminate_blocker
from tasks.tools.postgres_replication import DropSlot, postgres_drop_slot
from tasks.tools.postgres_sessions import (
    KillLongQueries,
    TerminateIdle,
    postgres_kill_long_queries,
    postgres_sessions,
    postgres_terminate_idle,
)
from tasks.tools.postgres_settings import ResetSetting, RevertSetting, postgres_reset_setting
from tasks.tools.postgres_tables import CreateIndex, TableStats, Vacuum, postgres_create_index, postgres_table_stats, postgres_vacuum
from tests.tasks.database_under_test import DatabaseUnderTest, database_under_test, wait_until

SHOW = "SELECT setting FROM pg_settings WHERE name = 'max_connections'"
STARTED = "SELECT pg_postmaster_start_time()"


@pytest.fixture
async def database(fresh_database: LabDescription) -> AsyncIterator[DatabaseUnderTest]:
    async with database_under_test(fresh_database) as found:
        yield found


@pytest.fixture
async def limited(database: DatabaseUnderTest) -> AsyncIterator[DatabaseUnderTest]:
    """The server with its settings' files restored, and restarted if they had changed."""
    files = [database.data / "postgresql.conf", database.data / "postgresql.auto.conf"]
    before = [path.read_text() for path in files]
    yield database
    if [path.read_text() for path in files] != before:
        for path, text in zip(files, before, strict=True):
            path.write_text(text)
        await database.runtime.restart()


async def up_for_three_seconds(database: DatabaseUnderTest) -> None:
    async def is_old_enough() -> bool:
        return bool(await database.value("SELECT clock_timestamp() - pg_postmaster_start_time() > interval '3 s'"))

    await wait_until(is_old_enough, "up for 3 s")


async def test_ninety_long_queries_end_and_bystanders_do_not(database: DatabaseUnderTest) -> None:
    client = database.client()
    hogs = await database.busy(86, "reports")
    bystanders = {
        (await database.busy(1, "payroll"))[0].pid,
        (await database.busy(1, "reports", "SELECT count(*) FROM pg_class, pg_sleep(3600)"))[0].pid,
        (await database.connect("reports")).pid,
        (await database.idle_in_transaction("reports")).pid,
    }
    await database.aged(*(hog.pid for hog in hogs))
    change = await postgres_kill_long_queries(
        client, KillLongQueries(min_seconds=0.1, application_name="reports", user="shop", query="SELECT pg_sleep(?)")
    )
    left = await database.pids()
    assert bystanders <= left
    assert not {hog.pid for hog in hogs} & left
    assert change.before["sessions_matched"] == 86
    assert change.after["sessions_matched"] == 0
    assert change.after["sessions_terminated"] == 86
    assert change.after["connections_used"] == 5
    with pytest.raises(NotApplicable, match="no session matches"):
        await postgres_kill_long_queries(client, KillLongQueries(min_seconds=0.1, query="SELECT pg_sleep(?)", application_name="reports"))


async def test_young_queries_are_left_alone(database: DatabaseUnderTest) -> None:
    young = (await database.busy(2, "reports"))[0]
    with pytest.raises(NotApplicable):
        await postgres_kill_long_queries(database.client(), KillLongQueries(min_seconds=600))
    assert young.pid in await database.pids()


async def test_a_limit_ends_the_oldest_first(database: DatabaseUnderTest) -> None:
    oldest = (await database.busy(1, "reports"))[0].pid
    younger = {session.pid for session in await database.busy(3, "reports")}
    await database.aged(oldest, *younger)
    change = await postgres_kill_long_queries(database.client(), KillLongQueries(min_seconds=0.1, application_name="reports", limit=1))
    assert change.after["sessions_terminated"] == 1
    left = await database.pids("application_name = 'reports'")
    assert oldest not in left
    assert younger <= left


async def test_superusers_backups_and_the_monitor_are_never_ended(database: DatabaseUnderTest) -> None:
    client = database.client()
    own = (await client.ask("SELECT pg_backend_pid() AS pid"))[0]["pid"]
    observer = await database.observer()
    sleeping = asyncio.create_task(observer.execute("SELECT pg_sleep(3600)"))
    async with database.trusting("postgres"):
        superuser = await database.connect("admin", "postgres")
    await database.run(superuser, "SELECT pg_sleep(3600)")
    backup = (await database.busy(1, "pg_dump"))[0].pid
    victim = (await database.busy(1, "reports"))[0].pid

    await database.aged(superuser.pid, backup, victim, observer.info.backend_pid)
    change = await postgres_kill_long_queries(client, KillLongQueries(min_seconds=0.1))
    left = await database.pids()
    assert change.after["sessions_terminated"] == 1
    assert victim not in left
    assert {own, superuser.pid, backup, observer.info.backend_pid} <= left
    # Named, a backup is ended like any other.
    await postgres_kill_long_queries(client, KillLongQueries(min_seconds=0.1, application_name="pg_dump"))
    assert backup not in await database.pids()
    await observer.cancel_safe()
    with pytest.raises(psycopg.errors.QueryCanceled):
        await sleeping
    await observer.close()


async def test_idle_sessions_of_one_application_end(database: DatabaseUnderTest) -> None:
    leaked = {(await database.connect("leaky")).pid for _ in range(20)}
    kept = {
        (await database.connect("shop")).pid,
        (await database.busy(1, "leaky"))[0].pid,
        (await database.idle_in_transaction("leaky")).pid,
    }
    arguments = TerminateIdle(min_idle_seconds=0.1, states=("idle",), application_name="leaky")
    await database.aged(*leaked, *kept)
    change = await postgres_terminate_idle(database.client(), arguments)
    left = await database.pids()
    assert not leaked & left
    assert kept <= left
    assert change.after["sessions_terminated"] == 20
    with pytest.raises(NotApplicable):
        await postgres_terminate_idle(database.client(), arguments)


async def test_one_backend_idle_in_its_transaction_ends_and_frees_its_lock(database: DatabaseUnderTest) -> None:
    blocker = await database.connect("worker")
    await blocker.connection.execute("CREATE TABLE IF NOT EXISTS stock (id int)")
    await blocker.connection.execute("BEGIN")
    await blocker.connection.execute("LOCK TABLE stock")
    other = (await database.idle_in_transaction("worker")).pid
    idle = (await database.connect("worker")).pid
    waiter = await database.connect("waiter")
    await database.run(waiter, "SELECT count(*) FROM stock")
    await database.aged(blocker.pid, other, idle, waiter.pid)
    assert await database.pids("wait_event_type = 'Lock'") == {waiter.pid}
    client = database.client()
    with pytest.raises(NotApplicable):  # it is not idle in a transaction, so its number alone does not end it
        await postgres_terminate_idle(client, TerminateIdle(min_idle_seconds=0.1, pid=idle))
    await postgres_terminate_idle(client, TerminateIdle(min_idle_seconds=0.1, application_name="worker", pid=blocker.pid))
    assert waiter.running is not None
    await asyncio.wait_for(waiter.running, 2)
    assert {other, idle} <= await database.pids()


async def test_an_aborted_transaction_counts_as_idle_in_transaction(database: DatabaseUnderTest) -> None:
    session = await database.connect("broken")
    await session.connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await session.connection.execute("SELECT 1/0")
    await database.aged(session.pid)
    await postgres_terminate_idle(database.client(), TerminateIdle(min_idle_seconds=0.1, application_name="broken"))
    assert session.pid not in await database.pids()


async def test_looking_at_the_sessions_changes_nothing(database: DatabaseUnderTest) -> None:
    busy = {session.pid for session in await database.busy(7, "reports")}
    change = await postgres_sessions(database.client(), NoArgs())
    assert change.before == change.after
    longest = change.after["longest"]
    groups = change.after["top_sessions"]
    assert isinstance(longest, list)
    assert isinstance(groups, list)
    assert len(longest) == 5
    assert {item["pid"] for item in longest if isinstance(item, dict)} <= busy
    assert isinstance(groups[0], dict)
    assert groups[0]["count"] == 7
    assert busy <= await database.pids()


async def test_a_restart_is_read_back_and_a_second_one_refused(database: DatabaseUnderTest) -> None:
    await up_for_three_seconds(database)
    before = await database.value(STARTED)
    client = database.client()
    change = await postgres_restart(client, NoArgs())
    after = await database.value(STARTED)
    assert after > before
    assert change.before["started_at"] == before.isoformat()
    assert change.after["started_at"] == after.isoformat()
    with pytest.raises(NotApplicable, match="started only"):
        await postgres_restart(client, NoArgs())
    assert await database.value(STARTED) == after


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
async def test_a_restart_brings_a_dead_or_frozen_server_back(database: DatabaseUnderTest, signal: str) -> None:
    before = await database.value(STARTED)
    await database.runtime.signal(signal)
    change = await postgres_restart(database.client(), NoArgs())
    assert change.before == {"answers": "no", "started_at": None}
    assert await database.value(STARTED) > before


async def test_a_restart_needs_a_runtime_and_a_login_to_read_it_back(database: DatabaseUnderTest) -> None:
    before = await database.value(STARTED)
    with pytest.raises(NotApplicable, match="runtime"):
        await postgres_restart(database.client(runtime=None), NoArgs())
    with pytest.raises(ToolFailed, match="password"):
        await postgres_restart(database.client(monitor=Login("evenkeel_monitor", "wrong")), NoArgs())
    assert await database.value(STARTED) == before


async def test_the_connections_are_raised_and_taken_back(limited: DatabaseUnderTest) -> None:
    client = limited.client(limits=Limits(connections=150))
    change = await postgres_scale_connections(client, ScaleConnections(connections=150))
    assert await limited.value(SHOW) == "150"
    assert change.undo == {"connections": 100}
    assert (change.before, change.after) == ({"max_connections": 100}, {"max_connections": 150})
    with pytest.raises(NotApplicable, match="already"):
        await postgres_scale_connections(client, ScaleConnections(connections=150))
    await postgres_scale_connections(client, ScaleConnections.model_validate(change.undo))
    assert await limited.value(SHOW) == "100"


@pytest.mark.parametrize(
    ("limit", "connections", "remedy"), [(None, 150, "limits.connections"), (120, 150, "beyond"), (120, 100, "already")]
)
async def test_scaling_is_refused_beyond_the_limits(limited: DatabaseUnderTest, limit: int | None, connections: int, remedy: str) -> None:
    before = await limited.value(STARTED), (limited.data / "postgresql.auto.conf").read_bytes()
    with pytest.raises(NotApplicable, match=remedy):
        await postgres_scale_connections(limited.client(limits=Limits(connections=limit)), ScaleConnections(connections=connections))
    assert before == (await limited.value(STARTED), (limited.data / "postgresql.auto.conf").read_bytes())


async def test_a_capacity_that_does_not_come_up_is_taken_back(limited: DatabaseUnderTest) -> None:
    # Not in force before the next restart, in which it does not go together with 20 connections.
    with (limited.data / "postgresql.conf").open("a") as file:
        file.write("reserved_connections = 20\n")
    async with await limited.observer() as observer:
        await observer.execute("ALTER SYSTEM SET work_mem = '5MB'")
    with pytest.raises(ToolFailed, match="max_connections is 100 again and the server runs"):
        await postgres_scale_connections(limited.client(limits=Limits(connections=150)), ScaleConnections(connections=20))
    assert await limited.value(SHOW) == "100"
    assert await limited.value("SELECT setting FROM pg_settings WHERE name = 'work_mem'") == "5120"
    assert "max_connections" not in (limited.data / "postgresql.auto.conf").read_text()


ALL_TOOLS: list[tuple[Callable[[Any, Any], Awaitable[Change]], ToolArgs]] = [
    (postgres_sessions, NoArgs()),
    (postgres_scale_connections, ScaleConnections(connections=120)),
    (postgres_vacuum, Vacuum(table="products")),
    (postgres_kill_long_queries, KillLongQueries(min_seconds=1)),
    (postgres_terminate_idle, TerminateIdle(min_idle_seconds=1)),
    (postgres_cancel_query, CancelQuery(pid=1, application_name="reports")),
    (postgres_terminate_blocker, TerminateBlocker(pid=1, application_name="reports")),
    (postgres_reset_setting, ResetSetting(setting="autovacuum")),
    (postgres_table_stats, TableStats(table="products")),
    (postgres_create_index, CreateIndex(table="products", columns=("name",))),
    (postgres_grant, Grant(privilege="SELECT", kind="table", name="products")),
    (postgres_drop_slot, DropSlot(slot="standby")),
]


@pytest.mark.parametrize("state", ["killed", "frozen"])
async def test_a_server_that_is_gone_is_unreachable_for_every_tool(database: DatabaseUnderTest, state: str) -> None:
    frozen = state == "frozen"
    await database.runtime.signal("SIGSTOP" if frozen else "SIGKILL")
    try:
        clients = [database.client(limits=Limits(connections=200)) for _ in ALL_TOOLS]
        calls = (tool(client, args) for client, (tool, args) in zip(clients, ALL_TOOLS, strict=True))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {Unreachable}
    finally:
        if frozen:
            await database.runtime.signal("SIGCONT")


async def test_a_reply_that_is_lost_leaves_an_unknown_outcome(database: DatabaseUnderTest) -> None:
    client = database.client()
    await client.read("SELECT 1")
    changing = asyncio.create_task(client.change("SELECT pg_sleep(1.5)"))

    async def is_running() -> bool:
        return bool(await database.pids("usename = 'evenkeel_monitor' AND query = 'SELECT pg_sleep(1.5)'"))

    await wait_until(is_running, "the change is under way")
    await database.runtime.signal("SIGKILL")
    with pytest.raises(OutcomeUnknown):
        await changing


async def test_a_reply_that_comes_too_late_leaves_an_unknown_outcome_and_a_working_client(database: DatabaseUnderTest) -> None:
    client = database.client()
    with pytest.raises(OutcomeUnknown, match="no reply within"):
        await client.change("SELECT pg_sleep(1)", seconds=0.2)
    assert await client.read("SELECT 1 AS one") == [{"one": 1}]


async def test_what_the_monitor_may_not_do_is_refused_by_the_server(database: DatabaseUnderTest) -> None:
    with pytest.raises(ToolFailed, match="permission denied"):
        await database.client().change("ALTER SYSTEM SET fsync = off")


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (KillLongQueries, {"min_seconds": 0}),
        (KillLongQueries, {"min_seconds": float("inf")}),
        (KillLongQueries, {"min_seconds": 1, "limit": 0}),
        (TerminateIdle, {"min_idle_seconds": 1, "states": ("active",)}),
        (TerminateIdle, {"min_idle_seconds": 1, "states": ()}),
        (ScaleConnections, {"connections": 100_000}),
        (Vacuum, {"table": ""}),
        (CancelQuery, {"pid": 0, "application_name": "reports"}),
        (ResetSetting, {"setting": "fsync"}),
        (RevertSetting, {"setting": "work_mem = 1"}),
        (DropSlot, {"slot": "a-b"}),
        (CreateIndex, {"table": "products", "columns": []}),
        (Grant, {"privilege": "USAGE", "kind": "table", "name": "products"}),
        (Grant, {"privilege": "SELECT", "kind": "table"}),
        (Grant, {"privilege": "TRUNCATE", "kind": "table", "name": "products"}),
    ],
)
def test_arguments_out_of_bounds_are_refused(model: type[ToolArgs], fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(fields)
