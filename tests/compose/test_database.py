"""The lab's PostgreSQL: who gets in when it is full, and what the monitor may do without being superuser."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from compose.description import LabDescription, Purpose

Call = Callable[..., httpx.Response]
WaitUntil = Callable[[Callable[[], object]], None]

CONNECTIONS = 100
RESERVED = 6


def connect(lab: LabDescription, purpose: Purpose) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(lab.database.conninfo(purpose), autocommit=True, connect_timeout=5)


@pytest.fixture
def exhausted(fresh_database: LabDescription) -> Iterator[LabDescription]:
    """All the connections that the application can have are taken."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS - RESERVED):
            stack.enter_context(connect(fresh_database, "application"))
        yield fresh_database


def test_the_monitor_gets_in_where_the_application_is_refused(exhausted: LabDescription, wait_until: WaitUntil) -> None:
    with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
        connect(exhausted, "application")
    with connect(exhausted, "monitor") as monitor:
        found = monitor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'").fetchone()
        assert found == (CONNECTIONS - RESERVED,)
        ended = monitor.execute("SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'shop'")
        assert ended.fetchone() == (CONNECTIONS - RESERVED,)
        left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'"
        wait_until(lambda: monitor.execute(left).fetchone() == (0,))
    with connect(exhausted, "application") as application:
        assert application.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("purpose", ["application", "monitor"])
def test_no_login_that_heals_is_a_superuser(fresh_database: LabDescription, purpose: Purpose) -> None:
    with connect(fresh_database, purpose) as connection:
        assert connection.execute("SHOW is_superuser").fetchone() == ("off",)
        rights = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        assert connection.execute(rights).fetchone() == (False,) * 5


def test_nobody_logs_in_without_the_password_or_as_the_superuser(fresh_database: LabDescription) -> None:
    database = fresh_database.database
    for username in ("shop", "evenkeel_monitor", "postgres"):
        for password in ("", "postgres", username):
            with pytest.raises(psycopg.OperationalError, match=r"password|authentication"):
                psycopg.connect(host=database.host, port=database.port, dbname=database.dbname, user=username, password=password)


def test_the_application_owns_its_database(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "application") as application:
        application.execute("CREATE TABLE mine (id integer)")
        application.execute("INSERT INTO mine VALUES (1)")
        with connect(fresh_database, "monitor") as monitor:
            assert monitor.execute("SELECT id FROM mine").fetchone() == (1,)
            monitor.execute("VACUUM (ANALYZE) mine")
            assert monitor.execute("SELECT vacuum_count, analyze_count FROM pg_stat_user_tables WHERE relname = 'mine'").fetchone() == (
                1,
                1,
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                monitor.execute("DELETE FROM mine")
        application.execute("DROP TABLE mine")


def test_the_application_changes_no_setting_and_ends_no_other_session(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "monitor") as monitor, connect(fresh_database, "application") as application:
        for statement in (
            "ALTER SYSTEM SET max_connections = 50",
            "SELECT pg_reload_conf()",
            f"SELECT pg_terminate_backend({monitor.info.backend_pid})",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                application.execute(statement)


def test_the_monitor_raises_max_connections_with_a_restart(fresh_database: LabDescription, call: Call) -> None:
    with connect(fresh_database, "monitor") as monitor:
        monitor.execute("ALTER SYSTEM SET max_connections = 150")
    call(fresh_database, "POST", "/services/database/restart").raise_for_status()
    with connect(fresh_database, "monitor") as monitor:
        assert monitor.execute("SHOW max_connections").fetchone() == ("150",)
        monitor.execute("ALTER SYSTEM RESET max_connections")
    call(fresh_database, "POST", "/services/database/restart").raise_for_status()
    with connect(fresh_database, "monitor") as monitor:
        assert monitor.execute("SHOW max_connections").fetchone() == (str(CONNECTIONS),)


def test_the_monitor_changes_a_timeout_with_a_reload(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "monitor") as monitor:
        monitor.execute("ALTER SYSTEM SET idle_in_transaction_session_timeout = '7s'")
        assert monitor.execute("SELECT pg_reload_conf()").fetchone() == (True,)
    with connect(fresh_database, "monitor") as monitor:
        assert monitor.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("7s",)
        monitor.execute("ALTER SYSTEM RESET idle_in_transaction_session_timeout")
        monitor.execute("SELECT pg_reload_conf()")


def test_it_is_as_durable_as_postgresql_is_by_default(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "monitor") as monitor:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert monitor.execute(f"SHOW {setting}").fetchone() == ("on",)


def test_maintenance_may_do_what_an_owner_may_and_no_more_than_that(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "application") as application, connect(fresh_database, "maintenance") as maintenance:
        application.execute("CREATE TABLE owned (id integer)")
        for statement in (
            "CREATE INDEX CONCURRENTLY owned_id_idx ON owned (id)",
            "ALTER TABLE owned SET (autovacuum_enabled = off)",
            "GRANT SELECT ON owned TO shop",
            "SELECT pg_create_physical_replication_slot('standby'), pg_drop_replication_slot('standby')",
        ):
            maintenance.execute(statement)
        for statement in ("ALTER SYSTEM SET fsync = off", "CREATE ROLE more", "ALTER ROLE shop SUPERUSER"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                maintenance.execute(statement)
        application.execute("DROP TABLE owned")


def test_the_admin_is_for_injecting_faults(fresh_database: LabDescription) -> None:
    with connect(fresh_database, "admin") as admin:
        assert admin.execute("SHOW is_superuser").fetchone() == ("on",)
