"""The PostgreSQL probe against a real server; what it reads is compared with queries over other connections."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator

import psycopg
import pytest

from blocks.schema import Thresholds
from compose.description import LabDescription
from tasks.clients.login import Login
from tasks.clients.postgres import PostgresClient
from tasks.clients.postgres_silence import Reason, reason_of
from tasks.core.errors import ProbeBroken
from tasks.core.models import Finding, Health, Reading
from tasks.probes.postgres import measure
from tasks.probes.postgres_judgement import judge
from tests.tasks.database_under_test import DatabaseUnderTest, database_under_test, wait_until


@pytest.fixture
async def database(fresh_database: LabDescription) -> AsyncIterator[DatabaseUnderTest]:
    async with database_under_test(fresh_database) as found:
        yield found


async def look(client: PostgresClient) -> tuple[Reading, dict[str, Finding]]:
    reading = await measure(client, client.resource)
    return reading, {finding.symptom: finding for finding in judge(reading, client.resource)}


async def test_a_healthy_server(database: DatabaseUnderTest) -> None:
    client = database.client()
    await look(client)
    reading, findings = await look(client)
    assert not findings
    assert reading.values["answers"] == "yes"
    assert reading.values["select_ok"] is True
    assert reading.values["connections_max"] == 100
    assert reading.values["connections_reserved"] == 6
    # The probe's own connection, and at times those that checks have just closed.
    assert reading.values["connections_used"] in range(1, 5)


async def test_connections_are_counted_and_their_holder_is_named_without_its_data(database: DatabaseUnderTest) -> None:
    client = database.client()
    await database.busy(86, "reports", "SELECT 'alice@example.org', 4711, pg_sleep(3600) AS sleep_1")
    reading, findings = await look(client)
    assert set(findings) == {"connections_high"}
    assert findings["connections_high"].health is Health.DEGRADED
    used = reading.values["connections_used"]
    assert isinstance(used, int)
    assert used >= 87
    assert reading.values["connections_percent"] == used
    groups = reading.values["top_sessions"]
    assert isinstance(groups, list)
    group = groups[0]
    assert isinstance(group, dict)
    assert (group["application_name"], group["user"], group["state"], group["count"]) == ("reports", "shop", "active", 86)
    assert group["query"] == "SELECT ?, ?, pg_sleep(?) AS sleep_1"
    assert "alice" not in reading.model_dump_json()
    assert "4711" not in reading.model_dump_json()


async def test_the_monitor_gets_in_when_the_application_does_not(database: DatabaseUnderTest) -> None:
    await database.busy(90, "reports")

    async def is_full() -> bool:
        try:
            await database.connect("late")
        except psycopg.OperationalError:
            return len(await database.pids("usename = 'shop'")) == 94
        return False

    await wait_until(is_full, "no connection is left")
    reading, findings = await look(database.client())
    assert findings["connections_exhausted"].health is Health.FAILED
    assert "connections_high" in findings
    assert reading.values["select_reason"] == "full"
    used = reading.values["connections_used"]
    assert isinstance(used, int)
    assert used >= 95


async def test_idle_in_transaction(database: DatabaseUnderTest) -> None:
    client = database.client(thresholds=Thresholds(idle_in_transaction_seconds=0.2))
    await database.idle_in_transaction("forgetful")

    async def is_found() -> bool:
        reading, findings = await look(client)
        assert reading.values["idle_in_transaction_count"] == 1
        assert reading.values["oldest_idle_in_transaction_application"] == "forgetful"
        return set(findings) == {"idle_in_transaction"}

    await wait_until(is_found, "the session is found")


async def test_the_root_of_a_queue_for_a_lock_is_named(database: DatabaseUnderTest) -> None:
    client = database.client(thresholds=Thresholds(blocked_seconds=0.2))
    holder = await database.connect("holder")
    await holder.connection.execute("CREATE TABLE IF NOT EXISTS queue (id int)")
    await holder.connection.execute("BEGIN")
    await holder.connection.execute("LOCK TABLE queue IN ACCESS EXCLUSIVE MODE")
    for _ in range(3):
        await database.run(await database.connect("waiter"), "SELECT count(*) FROM queue")

    async def is_found() -> bool:
        reading, findings = await look(client)
        blocker = reading.values["blocker"]
        if reading.values["blocked_count"] != 3:
            return False
        assert isinstance(blocker, dict)
        assert (blocker["pid"], blocker["application_name"], blocker["state"]) == (holder.pid, "holder", "idle in transaction")
        return "lock_wait" in findings

    await wait_until(is_found, "the wait is found")
    await holder.connection.execute("ROLLBACK")

    async def is_over() -> bool:
        reading, findings = await look(client)
        return reading.values["blocker"] is None and not findings

    await wait_until(is_over, "nobody waits")


async def test_a_stopped_server_is_down_and_is_measured_again_when_it_is_back(database: DatabaseUnderTest) -> None:
    client = database.client()
    await look(client)
    await database.runtime.stop()
    reading, findings = await look(client)
    assert findings["down"].health is Health.FAILED
    assert reading.values["answers"] == "refused"
    assert reading.values["runtime_state"] == "stopped"
    await database.runtime.start()
    reading, findings = await look(client)
    assert reading.values["answers"] == "yes"
    assert not findings


async def test_a_killed_server_is_down(database: DatabaseUnderTest) -> None:
    client = database.client()
    await look(client)
    await database.runtime.signal("SIGKILL")

    async def is_down() -> bool:
        reading, findings = await look(client)
        return set(findings) == {"down"} and reading.values["runtime_state"] == "exited"

    await wait_until(is_down, "the server is found down")


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_frozen_server_is_unresponsive_within_the_probes_time(database: DatabaseUnderTest, is_known: bool) -> None:
    client = database.client()
    if is_known:
        await look(client)
    await database.runtime.signal("SIGSTOP")
    try:
        started = time.monotonic()
        _, findings = await look(client)
        seconds = time.monotonic() - started
    finally:
        await database.runtime.signal("SIGCONT")
    assert findings["unresponsive"].health is Health.FAILED
    # The kept connection's own backend still answers: then it is the SELECT that waits.
    assert seconds < (3 if is_known else 1.5)


async def test_a_hanging_backend_does_not_hold_the_probe_up(database: DatabaseUnderTest) -> None:
    client = database.client()
    holder = await database.connect("holder")
    await look(client)
    started = time.monotonic()
    with pytest.raises(Exception, match="no answer within"):
        await client.ask("SELECT pg_sleep(30)", seconds=0.3)
    assert time.monotonic() - started < 1
    reading, _ = await look(client)
    assert reading.values["answers"] == "yes"
    assert holder.pid in await database.pids("application_name = 'holder'")


async def test_a_server_that_shuts_down_is_not_taken_for_a_dead_one(database: DatabaseUnderTest) -> None:
    session = await database.connect("lingering")
    await database.runtime.signal("SIGTERM")  # waits for the sessions to end

    async def is_starting() -> bool:
        reading, findings = await look(database.client())
        return reading.values["answers"] == "starting" and set(findings) == {"starting"}

    await wait_until(is_starting, "the shutdown is seen")
    await session.connection.close()

    async def has_exited() -> bool:
        return (await database.runtime.status()).state == "exited"

    await wait_until(has_exited, "the server has ended")


async def test_a_refused_monitor_breaks_the_probe_and_tells_no_password(database: DatabaseUnderTest) -> None:
    client = database.client(monitor=Login("evenkeel_monitor", "wr0ng-s3cret"))
    with pytest.raises(ProbeBroken, match="password authentication failed") as raised:
        await measure(client, client.resource)
    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + repr(client)
    assert "wr0ng-s3cret" not in told
    seen: BaseException | None = raised.value
    while seen is not None:
        # psycopg's own error carries the password in its `pgconn`.
        assert getattr(seen, "pgconn", None) is None
        seen = seen.__cause__ or seen.__context__


async def test_a_refused_application_is_a_failure_of_the_service(database: DatabaseUnderTest) -> None:
    client = database.client(application=Login("shop", "wrong"))
    reading, findings = await look(client)
    assert findings["application_refused"].health is Health.FAILED
    assert reading.values["select_reason"] == "login"
    assert "wrong" not in reading.model_dump_json()


async def test_a_monitor_that_sees_no_sessions_breaks_the_probe_unless_the_application_is_refused(database: DatabaseUnderTest) -> None:
    client = database.client()
    await database.admin("REVOKE pg_monitor FROM evenkeel_monitor")
    try:
        with pytest.raises(ProbeBroken, match="GRANT pg_monitor"):
            await measure(client, client.resource)
        refused = database.client(application=Login("shop", "wrong"))
        reading, findings = await look(refused)
        assert reading.values["sessions_visible"] is False
        assert set(findings) == {"application_refused"}
    finally:
        await database.admin("GRANT pg_monitor TO evenkeel_monitor")
    reading, findings = await look(client)
    assert reading.values["sessions_visible"] is True
    assert not findings


async def test_without_an_application_login_there_is_no_symptom_to_check(database: DatabaseUnderTest) -> None:
    client = database.client()
    client.application = None
    reading, findings = await look(client)
    assert "select_ok" not in reading.values
    assert not findings


async def test_many_resources_of_one_server_are_measured_without_using_it_up(database: DatabaseUnderTest) -> None:
    client = database.client()
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, len(await database.pids("application_name = 'evenkeel'")))

    watching = asyncio.create_task(watch())
    readings = await asyncio.gather(*(measure(client, client.resource) for _ in range(300)))
    watching.cancel()
    await asyncio.wait({watching})
    assert all(reading.values["select_ok"] is True for reading in readings)
    assert peak <= 3


async def test_a_lost_monitoring_connection_is_opened_again(database: DatabaseUnderTest) -> None:
    client = database.client()
    await look(client)
    kept = await database.pids("application_name = 'evenkeel' AND usename = 'evenkeel_monitor'")
    assert await database.value("SELECT count(pg_terminate_backend(pid)) FROM unnest(%s::int[]) AS pid", list(kept)) == 1
    reading, findings = await look(client)
    assert reading.values["answers"] == "yes"
    assert not findings
    assert await database.pids("usename = 'evenkeel_monitor'") != kept


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("FATAL:  sorry, too many clients already", Reason.FULL),
        (
            'FATAL:  remaining connection slots are reserved for roles with privileges of the "pg_use_reserved_connections" role',
            Reason.FULL,
        ),
        ('FATAL:  too many connections for role "shop"', Reason.FULL),
        ("FATAL:  the database system is starting up", Reason.STARTING),
        ("FATAL:  the database system is in recovery mode", Reason.STARTING),
        ("FATAL:  the database system is not yet accepting connections", Reason.STARTING),
        ('connection to server at "127.0.0.1", port 1 failed: Connection refused', Reason.REFUSED),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", Reason.UNRESOLVED),
        ('FATAL:  no pg_hba.conf entry for host "127.0.0.1"', Reason.LOGIN),
        ('FATAL:  database "shop" does not exist', Reason.LOGIN),
    ],
)
def test_why_a_connection_was_refused(message: str, reason: Reason) -> None:
    assert reason_of(message) is reason
