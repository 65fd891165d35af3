"""PostgreSQL's tools for one session, setting, right, table or slot, on a real server; effects are asked over connections apart."""

import json
from collections.abc import AsyncIterator

import psycopg
import pytest

from compose.description import LabDescription
from tasks.clients.postgres_log import refused_setting
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.tools import postgres_tables
from tasks.tools.postgres_access import Grant, postgres_grant
from tasks.tools.postgres_backends import CancelQuery, TerminateBlocker, postgres_cancel_query, postgres_terminate_blocker
from tasks.tools.postgres_replication import DropSlot, postgres_drop_slot
from tasks.tools.postgres_settings import ResetSetting, RevertSetting, postgres_reset_setting, postgres_revert_setting
from tasks.tools.postgres_tables import CreateIndex, TableStats, Vacuum, postgres_create_index, postgres_table_stats, postgres_vacuum
from tests.tasks.database_under_test import DatabaseUnderTest, database_under_test, wait_until

READ_ONLY = "SHOW default_transaction_read_only"
INDEXES = """
    SELECT array_agg(indexrelid::regclass::text || CASE WHEN indisvalid THEN '' ELSE ' invalid' END) FROM pg_index
    WHERE indrelid = %s::regclass
"""


@pytest.fixture
async def database(fresh_database: LabDescription) -> AsyncIterator[DatabaseUnderTest]:
    async with database_under_test(fresh_database) as found:
        yield found


@pytest.fixture
async def lines(database: DatabaseUnderTest) -> AsyncIterator[DatabaseUnderTest]:
    """With a table `lines` of the application's, of 1,000 rows."""
    await database.admin(
        "CREATE TABLE lines (id integer, customer text)",
        "ALTER TABLE lines OWNER TO shop",
        "INSERT INTO lines SELECT n, 'customer-' || n % 10 FROM generate_series(1, 1000) AS n",
    )
    yield database
    await database.admin(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'shop'",
        "DROP TABLE lines",
    )


async def test_one_statement_is_cancelled_and_its_session_lives(database: DatabaseUnderTest) -> None:
    runaway, bystander = (await database.busy(2, "reports"))[:2]
    await database.aged(runaway.pid)
    client = database.client()
    for refused in (
        CancelQuery(pid=runaway.pid, application_name="payroll", min_seconds=0.1),
        CancelQuery(pid=runaway.pid, application_name="reports", min_seconds=3600),
        CancelQuery(pid=1, application_name="reports", min_seconds=0.1),
    ):
        with pytest.raises(NotApplicable, match="runs no statement"):
            await postgres_cancel_query(client, refused)
    change = await postgres_cancel_query(client, CancelQuery(pid=runaway.pid, application_name="reports", min_seconds=0.1))
    assert (change.before["statement_running"], change.after["statement_running"]) == (True, False)
    assert change.before["query"] == "SELECT pg_sleep(?)"
    assert await database.pids("state = 'idle' AND usename = 'shop'") == {runaway.pid}
    assert bystander.pid in await database.pids("state = 'active'")
    with pytest.raises(NotApplicable, match="runs no statement"):
        await postgres_cancel_query(client, CancelQuery(pid=runaway.pid, application_name="reports", min_seconds=0.1))


async def test_the_root_of_a_queue_is_ended_and_nobody_in_it(lines: DatabaseUnderTest) -> None:
    client = lines.client()
    holder = await lines.connect("pricelist")
    bystander = await lines.idle_in_transaction("pricelist")
    await holder.connection.execute("BEGIN")
    await holder.connection.execute("LOCK TABLE lines IN ACCESS EXCLUSIVE MODE")
    first = await lines.connect("search")
    await lines.run(first, "LOCK TABLE lines IN ACCESS EXCLUSIVE MODE; SELECT count(*) FROM lines")

    async def waits(pid: int) -> bool:
        return bool(await lines.value("SELECT cardinality(pg_blocking_pids(%s)) > 0", pid))

    await wait_until(lambda: waits(first.pid), "the first waits")
    second = await lines.connect("search")
    await lines.run(second, "SELECT count(*) FROM lines")
    await wait_until(lambda: waits(second.pid), "the second waits behind the first")
    for pid, application in ((bystander.pid, "pricelist"), (first.pid, "search"), (holder.pid, "search")):
        with pytest.raises(NotApplicable, match="not the root"):
            await postgres_terminate_blocker(client, TerminateBlocker(pid=pid, application_name=application))
    change = await postgres_terminate_blocker(client, TerminateBlocker(pid=holder.pid, application_name="pricelist"))
    assert change.before["sessions_waiting"] == 2
    assert change.after["sessions_blocked"] == 0
    for waiting in (first, second):
        assert waiting.running is not None
        await waiting.running
    left = await lines.pids()
    assert holder.pid not in left
    assert {bystander.pid, first.pid, second.pid} <= left
    with pytest.raises(NotApplicable, match="not the root"):
        await postgres_terminate_blocker(client, TerminateBlocker(pid=bystander.pid, application_name="pricelist"))


async def test_a_setting_is_reset_and_set_again(database: DatabaseUnderTest) -> None:
    client = database.client()
    with pytest.raises(NotApplicable, match="ALTER SYSTEM has not set it"):
        await postgres_reset_setting(client, ResetSetting(setting="default_transaction_read_only"))
    await database.admin(
        "ALTER SYSTEM SET default_transaction_read_only = on", "ALTER SYSTEM SET work_mem = '5MB'", "SELECT pg_reload_conf()"
    )

    async def shows(wanted: str) -> bool:
        return bool(await database.value(READ_ONLY) == wanted)

    try:
        await wait_until(lambda: shows("on"), "the setting is loaded")
        change = await postgres_reset_setting(client, ResetSetting(setting="default_transaction_read_only"))
        assert (change.before, change.after) == ({"default_transaction_read_only": "on"}, {"default_transaction_read_only": "off"})
        await wait_until(lambda: shows("off"), "the reset is loaded")
        assert "work_mem" in (database.data / "postgresql.auto.conf").read_text()
        await postgres_reset_setting(client, ResetSetting.model_validate(change.undo))
        await wait_until(lambda: shows("on"), "it is set again")
        with pytest.raises(NotApplicable, match="already"):
            await postgres_reset_setting(client, ResetSetting.model_validate(change.undo))
    finally:
        await database.admin("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    await wait_until(lambda: shows("off"), "the settings are back")


async def test_a_setting_that_keeps_the_server_from_starting_is_taken_out(database: DatabaseUnderTest) -> None:
    path = database.data / "postgresql.auto.conf"
    client = database.client(config_path=str(path))
    with pytest.raises(NotApplicable, match="the server answers"):
        await postgres_revert_setting(client, RevertSetting(setting="wal_buffers"))
    before = path.read_bytes()
    try:
        path.write_text("lock_timeout = '7s'\nwal_buffers = 'plenty'\n")
        with pytest.raises(ToolFailed):
            await database.runtime.restart()
        for other, why in (("lock_timeout", "refuses wal_buffers, not lock_timeout"), ("fsync", "refuses wal_buffers, not fsync")):
            with pytest.raises(NotApplicable, match=why):
                await postgres_revert_setting(client, RevertSetting(setting=other))
        with pytest.raises(NotApplicable, match="config_path"):
            await postgres_revert_setting(database.client(), RevertSetting(setting="wal_buffers"))
        hba = database.client(config_path=str(path.with_name("pg_hba.conf")))
        with pytest.raises(NotApplicable, match=r"only postgresql\.auto\.conf"):
            await postgres_revert_setting(hba, RevertSetting(setting="wal_buffers"))
        change = await postgres_revert_setting(client, RevertSetting(setting="wal_buffers"))
        assert (change.before["wal_buffers"], change.after["wal_buffers"], change.after["answers"]) == ("plenty", None, "yes")
        assert path.read_text() == "lock_timeout = '7s'\n"
        assert await database.value("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'") == "7000"
    finally:
        path.write_bytes(before)
        if (await database.runtime.status()).state != "running":
            await database.runtime.start()


@pytest.mark.parametrize(
    ("lines", "setting"),
    [
        (['LOG:  invalid value for parameter "work_mem": "lots"', "FATAL:  configuration file contains errors"], "work_mem"),
        (['FATAL:  parameter "shared_buffers" requires a numeric value'], "shared_buffers"),
        (['LOG:  unrecognized configuration parameter "wrk_mem" in file "/x" line 3', "FATAL:  configuration file"], "wrk_mem"),
        (['FATAL:  could not access file "pg_stat_statement": No such file or directory'], "shared_preload_libraries"),
        (["FATAL:  could not map anonymous shared memory: Cannot allocate memory"], "shared_buffers"),
        (
            ['FATAL:  "superuser_reserved_connections" (3) plus "reserved_connections" (9) must be less than "max_connections" (10)'],
            "max_connections",
        ),
        # An earlier start's; the server has run since.
        (['FATAL:  invalid value for parameter "work_mem"', "LOG:  database system is ready to accept connections"], None),
        (['LOG:  invalid value for parameter "work_mem": "lots"'], None),
        (["FATAL:  the data directory has wrong ownership"], None),
        ([], None),
    ],
)
def test_what_a_log_says_of_a_start_that_failed(lines: list[str], setting: str | None) -> None:
    assert refused_setting(lines) == setting


async def test_exactly_one_privilege_is_granted_and_revoked_again(lines: DatabaseUnderTest) -> None:
    client, select = lines.client(), Grant(privilege="SELECT", kind="table", name="lines")
    with pytest.raises(NotApplicable, match="already"):
        await postgres_grant(client, select)
    await lines.admin("REVOKE SELECT, DELETE ON lines FROM shop")
    change = await postgres_grant(client, select)
    reader = await lines.connect("reader")
    assert await (await reader.connection.execute("SELECT count(*) FROM lines")).fetchone() == (1000,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await reader.connection.execute("DELETE FROM lines")
    assert (
        await lines.value("SELECT grantor::regrole::text FROM pg_class, aclexplode(relacl) WHERE oid = 'lines'::regclass LIMIT 1") == "shop"
    )
    await postgres_grant(client, Grant.model_validate(change.undo))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await reader.connection.execute("SELECT count(*) FROM lines")
    with pytest.raises(NotApplicable, match="no table"):
        await postgres_grant(client, Grant(privilege="SELECT", kind="table", name="lines; DROP TABLE lines"))
    with pytest.raises(ToolFailed, match="permission denied"):
        await postgres_grant(client, Grant(privilege="SELECT", kind="table", schema_name="pg_catalog", name="pg_authid"))


async def test_an_index_is_built_and_dropped_again_and_an_invalid_one_is_replaced(lines: DatabaseUnderTest) -> None:
    client, wanted = lines.client(), CreateIndex(table="lines", columns=("customer", "id"))
    with pytest.raises(NotApplicable, match="no column price; it has customer, id"):
        await postgres_create_index(client, CreateIndex(table="lines", columns=("price",)))
    with pytest.raises(NotApplicable, match="nothing was dropped"):
        await postgres_create_index(client, wanted.model_copy(update={"drop": True}))
    change = await postgres_create_index(client, wanted)
    assert await lines.value(INDEXES, "lines") == ["lines_customer_id_idx"]
    assert change.after == {"index": "lines_customer_id_idx", "columns": ["customer", "id"], "valid": True}
    with pytest.raises(NotApplicable, match="is there already"):
        await postgres_create_index(client, CreateIndex(table="lines", columns=("customer",)))
    await lines.admin("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'lines_customer_id_idx'::regclass")
    await postgres_create_index(client, wanted)
    assert await lines.value(INDEXES, "lines") == ["lines_customer_id_idx"]
    stats = (await postgres_table_stats(client, TableStats(table="lines"))).after
    assert stats["columns"] == {"id": "integer", "customer": "text"}
    assert "lines_customer_id_idx" in str(stats["indexes"])
    await postgres_create_index(client, CreateIndex.model_validate_json(json.dumps(change.undo)))
    assert await lines.value(INDEXES, "lines") is None


async def test_an_index_that_can_not_be_built_leaves_nothing_behind(lines: DatabaseUnderTest) -> None:
    # Longer than a page of the index holds, and such as no compression makes shorter.
    await lines.admin("UPDATE lines SET customer = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n) WHERE id = 1")
    with pytest.raises(ToolFailed, match=r"index row .* is dropped again"):
        await postgres_create_index(lines.client(), CreateIndex(table="lines", columns=("customer",)))
    assert await lines.value(INDEXES, "lines") is None


async def test_an_index_waits_for_older_transactions_only_so_long(lines: DatabaseUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_tables, "OLDER_SECONDS", 0.3)
    monkeypatch.setattr(postgres_tables, "LOCK_SECONDS", 0.3)
    writer = await lines.idle_in_transaction("writer", "UPDATE lines SET id = id WHERE id = 1")
    client, wanted = lines.client(), CreateIndex(table="lines", columns=("id",))
    with pytest.raises(ToolFailed, match=r"an invalid part is left .* the next try removes"):
        await postgres_create_index(client, wanted)
    await writer.connection.execute("ROLLBACK")
    await postgres_create_index(client, wanted)
    assert await lines.value(INDEXES, "lines") == ["lines_id_idx"]


async def test_a_vacuum_turns_autovacuum_on_again(lines: DatabaseUnderTest) -> None:
    await lines.admin("ALTER TABLE lines SET (autovacuum_enabled = off, fillfactor = 90)")
    change = await postgres_vacuum(lines.client(), Vacuum(table="lines", autovacuum=True))
    assert (change.before["autovacuum"], change.after["autovacuum"]) == ("off for the table", "on")
    assert await lines.value("SELECT reloptions::text FROM pg_class WHERE relname = 'lines'") == "{fillfactor=90}"


async def test_only_a_slot_that_nobody_reads_is_dropped(database: DatabaseUnderTest) -> None:
    client, slots = database.client(), "SELECT count(*) FROM pg_replication_slots"
    with pytest.raises(NotApplicable, match="no replication slot"):
        await postgres_drop_slot(client, DropSlot(slot="standby"))
    await database.admin(
        "SELECT pg_create_physical_replication_slot('standby', true)", "SELECT pg_create_physical_replication_slot('other')"
    )
    try:
        change = await postgres_drop_slot(client, DropSlot(slot="standby"))
        assert (change.before["slot"], change.after["slot"]) == ("standby", None)
        assert await database.value(slots) == 1
    finally:
        await database.admin("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


async def test_a_repair_without_a_maintenance_login_says_what_is_missing(lines: DatabaseUnderTest) -> None:
    client = lines.client()
    client.maintenance = None
    with pytest.raises(ToolFailed, match=r"must be owner .* add `logins\.maintenance`"):
        await postgres_create_index(client, CreateIndex(table="lines", columns=("id",)))
    await postgres_vacuum(client, Vacuum(table="lines"))  # the lab's monitor has pg_maintain


async def test_a_setting_is_not_taken_out_of_a_server_whose_runtime_is_gone(database: DatabaseUnderTest) -> None:
    await database.runtime.stop()
    client = database.client(config_path=str(database.data / "postgresql.auto.conf"))
    assert client.runtime is not None
    client.runtime._control = "/nowhere"  # type: ignore[attr-defined]
    with pytest.raises(Unreachable):
        await postgres_revert_setting(client, RevertSetting(setting="work_mem"))


async def test_a_vacuum_frees_dead_rows(database: DatabaseUnderTest) -> None:
    session = await database.connect("writer")
    for statement in (
        'CREATE TABLE "odd \'name" (id int) WITH (autovacuum_enabled = off)',
        'INSERT INTO "odd \'name" SELECT generate_series(1, 1000)',
        'DELETE FROM "odd \'name" WHERE id <= 600',
    ):
        await session.connection.execute(statement.encode())
    await session.connection.execute("SELECT pg_stat_force_next_flush()")
    dead = "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relname = 'odd ''name'"

    async def is_counted() -> bool:
        return await database.value(dead) == 600  # type: ignore[no-any-return]

    await wait_until(is_counted, "the dead rows are counted")
    change = await postgres_vacuum(database.client(), Vacuum(table="odd 'name"))
    assert await database.value(dead) == 0
    assert (change.before["dead_rows"], change.after["dead_rows"]) == (600, 0)
    assert change.after["live_rows"] == 400
    await session.connection.execute('DROP TABLE "odd \'name"')


async def test_a_vacuum_refuses_what_is_no_table_and_waits_for_no_lock(database: DatabaseUnderTest) -> None:
    client = database.client()
    with pytest.raises(NotApplicable, match="no table"):
        await postgres_vacuum(client, Vacuum(table="pg_class; DROP TABLE x"))
    holder = await database.connect("holder")
    await holder.connection.execute("CREATE TABLE IF NOT EXISTS locked (id int)")
    await holder.connection.execute("BEGIN")
    await holder.connection.execute("LOCK TABLE locked")
    with pytest.raises(NotApplicable, match="lock timeout"):
        await postgres_vacuum(client, Vacuum(table="locked"))
