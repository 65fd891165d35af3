"""Cloud SQL's probe and tools: the API simulated at the wire, the database a real server, every effect by an independent query."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.schema import Limits
from compose.google_cloud.faults import Fault
from compose.google_cloud.world import FULL, Delays
from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.login import Login
from tasks.clients.polling import poll
from tasks.clients.private_way import PrivateWay
from tasks.clients.ssh import KeptSsh
from tasks.core.cloud_sql_judgement import judge
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed
from tasks.probes.cloud_sql import measure
from tasks.tools.cloud_sql import (
    GrowStorage,
    ScaleTier,
    gcp_sql_grow_storage,
    gcp_sql_kill_long_queries,
    gcp_sql_restart_instance,
    gcp_sql_scale_tier,
)
from tasks.tools.postgres_sessions import KillLongQueries
from tests.google_cloud_world import GoogleProject, lead_to
from tests.managed_world import SQL, direct_sql, managed_project, sql_client
from tests.tasks.ssh_under_test import HOST, SshServer, ssh_server

SLEEP = "SELECT pg_sleep(600)"
PATCH, RESTART = "sql.instances.patch", "sql.instances.restart"
SLOW = Delays(operation_seconds=1.5, ingest_seconds=0)


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory, google_authority: Path) -> Iterator[GoogleProject]:
    with managed_project(tmp_path_factory, google_authority, SQL) as project:
        yield project


@pytest.fixture
def project(playing: GoogleProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleProject]:
    lead_to(playing, monkeypatch)
    playing.admin.reset()
    yield playing
    assert playing.admin.violations() == []


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("machine")) as running:
        yield running


@asynccontextmanager
async def through(server: SshServer, **changes: Any) -> AsyncIterator[PrivateWay]:
    async def address() -> str:
        return HOST

    chosen: dict[str, Any] = {"port": server.port, "host_keys": (server.host_key,), "login": server.login, **changes}
    ssh = KeptSsh(name="shop-vm", address=address, **chosen)
    try:
        yield PrivateWay(ssh, "shop-vm")
    finally:
        await ssh.close()


@asynccontextmanager
async def running(project: GoogleProject, *applications: str) -> AsyncIterator[list[psycopg.AsyncConnection[Any]]]:
    """A session for each of the applications, in a statement that does not end by itself."""
    async with AsyncExitStack() as stack:
        sessions = await asyncio.gather(*(direct_sql(project, application) for application in applications))
        for session in sessions:
            stack.push_async_callback(session.close)
        tasks = [asyncio.create_task(session.execute(SLEEP)) for session in sessions]
        try:
            yield sessions
        finally:
            # What was not ended meanwhile is ended here.
            async with await direct_sql(project, "psql", "admin") as admin:
                await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = %s", [SLEEP])
            await asyncio.gather(*tasks, return_exceptions=True)


async def asked(project: GoogleProject, query: Any, *params: Any) -> Any:
    async with await direct_sql(project, "psql", "admin") as admin:
        row = await (await admin.execute(query, params or None)).fetchone()
        return None if row is None else row[0]


async def sessions_of(project: GoogleProject, application: str) -> int:
    return int(await asked(project, "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", application))


async def measured(client: CloudSqlClient) -> tuple[dict[str, Any], set[str]]:
    reading = await measure(client, client.resource)
    return dict(reading.values), {finding.symptom for finding in judge(reading, client.resource)}


async def until_seen(client: CloudSqlClient, symptom: str, name: str) -> dict[str, Any]:
    """The reading that shows a symptom and has a value: Cloud Monitoring and sessions take their time."""

    async def seen() -> dict[str, Any] | None:
        values, symptoms = await measured(client)
        return values if (not symptom or symptom in symptoms) and values.get(name) is not None else None

    found = await poll(seen, seconds=30, every_seconds=0.2)
    assert found is not None, await measured(client)
    return found


async def test_the_reading_says_where_each_value_comes_from(project: GoogleProject, machine: SshServer) -> None:
    async with through(machine) as way, sql_client(project, way=way) as client:
        values = await until_seen(client, "", "cpu_percent")
        assert values["connections_max"] == int(await asked(project, "SELECT current_setting('max_connections')")) == 50
        assert values["answers"] == "yes"
        assert values["select_ok"] is True
        assert values["sources"]["connections"] == "PostgreSQL, through shop-vm"
        assert values["sources"]["cpu_percent"].startswith("Cloud Monitoring, ")
        assert 0 < values["disk_percent"] < 90
        assert (await measured(client))[1] == set()
    # The machine in between is lost: what Cloud Monitoring has of the connections stands in, with its age.
    nobody = Login("keeper", machine.login.password)
    async with through(machine, port=1, login=nobody) as way, running(project, *["reports"] * 44):

        async def seen() -> dict[str, Any] | None:
            # Each time anew: what was asked of Cloud Monitoring is shared for some seconds.
            async with sql_client(project, way=way) as client:
                values, symptoms = await measured(client)
            return values if "connections_high" in symptoms else None

        found = await poll(seen, seconds=30, every_seconds=0.2)
        assert found is not None
        assert "answers" not in found
        assert "shop-vm" in found["data_plane_error"]
        assert found["sources"]["connections"].startswith("Cloud Monitoring, ")
        assert found["connections_max"] == 50


@pytest.mark.slow
async def test_a_frozen_machine_in_between_is_not_taken_for_a_silent_database(project: GoogleProject, machine: SshServer) -> None:
    async with through(machine) as way, sql_client(project, way=way) as client:
        assert (await measured(client))[0]["answers"] == "yes"
        machine.send(signal.SIGSTOP)
        try:
            values, symptoms = await measured(client)
        finally:
            machine.send(signal.SIGCONT)
        assert "answers" not in values
        assert "shop-vm" in values["data_plane_error"]
        assert not symptoms & {"unresponsive", "down"}
        await until_seen(client, "", "answers")


async def test_connections_that_are_used_up_come_back_by_ending_one_applications_queries(project: GoogleProject) -> None:
    reports = KillLongQueries(min_seconds=0.1, application_name="reports", user="orders")
    async with sql_client(project) as client, running(project, *["reports"] * 42, "checkout"):
        values = await until_seen(client, "connections_high", "top_sessions")
        assert (values["top_sessions"][0]["application_name"], values["top_sessions"][0]["count"]) == ("reports", 42)
        with pytest.raises(NotApplicable, match="no session matches"):
            await gcp_sql_kill_long_queries(client, KillLongQueries(min_seconds=0.1, application_name="nobody"))
        change = await gcp_sql_kill_long_queries(client, reports)
        assert (change.after["sessions_terminated"], change.after["by"]) == (42, "login")
        assert await sessions_of(project, "reports") == 0
        assert await sessions_of(project, "checkout") == 1
        assert (await measured(client))[1] == set()
    # Without a login of ours, by the API.
    async with sql_client(project, logins=False) as client, running(project, "reports", "reports", "checkout"):
        await poll_until_running(project, 3)
        change = await gcp_sql_kill_long_queries(client, reports)
        assert (change.before["sessions_matched"], change.after["sessions_matched"], change.after["by"]) == (2, 0, "executeSql")
        assert await sessions_of(project, "reports") == 0
        assert await sessions_of(project, "checkout") == 1


async def poll_until_running(project: GoogleProject, count: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query = %s AND query_start < clock_timestamp() - interval '0.2 s'"

    async def all_run() -> bool | None:
        return await asked(project, query, SLEEP) == count or None

    assert await poll(all_run, seconds=30, every_seconds=0.1)


@pytest.mark.slow
async def test_a_tier_is_changed_once_and_only_to_a_declared_larger_one(project: GoogleProject) -> None:
    async with sql_client(project) as client:
        for tier, reason in (("db-custom-4-15360", "is not among limits.tiers"), ("db-f1-micro", "does not stand above the present tier")):
            with pytest.raises(NotApplicable, match=reason):
                await gcp_sql_scale_tier(client, ScaleTier(tier=tier))
        assert project.admin.mutations() == []
        project.admin.set_delays(SLOW)
        wanted = ScaleTier(tier="db-custom-1-3840")
        first = asyncio.create_task(gcp_sql_scale_tier(client, wanted))

        async def sent() -> bool | None:
            return bool(await asyncio.to_thread(project.admin.mutations, PATCH)) or None

        assert await poll(sent, seconds=20, every_seconds=0.05)
        first.cancel()
        await asyncio.wait({first})
        # Whoever comes after the crash takes up what is under way; anything else is refused meanwhile.
        with pytest.raises(NotApplicable, match="already in progress"):
            await gcp_sql_restart_instance(client, NoArgs())
        change = await gcp_sql_scale_tier(client, wanted)
        assert (change.before["tier"], change.after["tier"], change.after["connections_max"]) == ("db-g1-small", "db-custom-1-3840", 100)
        assert await asked(project, "SELECT current_setting('max_connections')") == "100"
        assert [one.method for one in project.admin.mutations() if one.outcome == "began"] == [PATCH]
        assert (await gcp_sql_scale_tier(client, wanted)).after["tier"] == "db-custom-1-3840"
        assert len(project.admin.mutations(PATCH)) == 1


@pytest.mark.slow
async def test_storage_grows_and_never_shrinks(project: GoogleProject) -> None:
    async with sql_client(project, limits=Limits(storage_gib=20)) as client:
        before = (await until_seen(client, "", "disk_percent"))["disk_percent"]
        with pytest.raises(NotApplicable, match=r"above limits\.storage_gib, which is 20"):
            await gcp_sql_grow_storage(client, GrowStorage(storage_gib=21))
        started = await asked(project, "SELECT pg_postmaster_start_time()")
        change = await gcp_sql_grow_storage(client, GrowStorage(storage_gib=20))
        assert (change.before["storage_gib"], change.after["storage_gib"], change.undo) == (10, 20, None)
        assert await asked(project, "SELECT pg_postmaster_start_time()") == started
        with pytest.raises(NotApplicable, match="storage can't be made smaller"):
            await gcp_sql_grow_storage(client, GrowStorage(storage_gib=15))

    async def less() -> bool | None:
        async with sql_client(project) as client:
            share = (await measured(client))[0]["disk_percent"]
            return (share is not None and share < 0.6 * before) or None

    assert await poll(less, seconds=30, every_seconds=0.3)


@pytest.mark.slow
async def test_a_database_that_is_down_is_restarted_once_also_when_the_reply_is_lost(project: GoogleProject) -> None:
    async with sql_client(project) as client:
        await measured(client)
        project.admin.touch_plane(SQL, "kill")
        values, symptoms = await measured(client)
        assert symptoms == {"down"}
        assert (values["state"], values["answers"], values["operation"]) == ("RUNNABLE", "refused", None)
        project.admin.add(Fault(method=RESTART, cut=True, takes_effect=True, times=1))
        change = await gcp_sql_restart_instance(client, NoArgs())
        assert change.before["started_at"] is None
        assert change.after["started_at"] == await asked(project, "SELECT pg_postmaster_start_time()::text")
        assert len(project.admin.mutations(RESTART)) == 1
        assert (await measured(client))[1] == set()
        # While another's restart is under way and nothing answers, nothing is wrong that does not end by itself.
        project.admin.set_delays(SLOW)
        project.admin.touch_plane(SQL, "kill")
        restart = asyncio.create_task(gcp_sql_restart_instance(client, NoArgs()))
        values = await until_seen(client, "in_transition", "operation")
        assert values["operation"] == "RESTART"
        await restart


@pytest.mark.parametrize(("state", "symptom"), [("MAINTENANCE", "in_transition"), ("SUSPENDED", "not_running")])
async def test_a_state_of_the_api_is_judged_and_nothing_is_changed_in_it(project: GoogleProject, state: str, symptom: str) -> None:
    project.admin.change_record(SQL, state=state)
    async with sql_client(project) as client:
        values, symptoms = await measured(client)
        assert (values["state"], symptoms) == (state, {symptom})
        with pytest.raises(NotApplicable, match=f"its state is {state}"):
            await gcp_sql_restart_instance(client, NoArgs())
    assert project.admin.mutations() == []


@pytest.mark.slow
async def test_failures_of_the_api_end_in_the_right_outcome(project: GoogleProject) -> None:
    async with sql_client(project) as client:
        project.admin.permit("evenkeel", tuple(one for one in FULL if one != "cloudsql.instances.restart"))
        with pytest.raises(ToolFailed, match=r"restart of orders-db: .*evenkeel@.* lacks a permission"):
            await gcp_sql_restart_instance(client, NoArgs())
        project.admin.permit("evenkeel", FULL)
        project.admin.add(Fault(method=PATCH, operation="error", times=1))
        with pytest.raises(ToolFailed, match="INTERNAL_ERROR An internal error occurred"):
            await gcp_sql_grow_storage(client, GrowStorage(storage_gib=12))
        project.admin.add(Fault(method="sql.instances.executeSql", cut=True, takes_effect=True, skip=1, times=1))
        async with running(project, "reports"):
            await poll_until_running(project, 1)
            client.monitor = None
            with pytest.raises(OutcomeUnknown, match="the reply was lost"):
                await gcp_sql_kill_long_queries(client, KillLongQueries(min_seconds=0.1))
