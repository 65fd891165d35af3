"""Cloud SQL's data plane: PostgreSQL from its wheel, with the connections of its tier."""

import asyncio
import contextlib
import re
import signal
import time
from pathlib import Path

import psutil
import psycopg

from compose.database import create_cluster, is_ready, postgres_program
from compose.description import Database, cluster_name, write_private
from compose.google_cloud.planes import PlaneFailed, SqlMeasures, SqlRows
from compose.new_lab import new_login
from compose.service import Service
from compose.shared_memory import remove_left
from compose.supervised import ServiceFailed, SupervisedService
from compose.unprivileged import unprivileged

PORT = 5432
MIB_OF_A_GIB = 16
"""An instance's GiB of storage is so many MiB of the real server's directory."""
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 30
SHARED = {"db-f1-micro": (1, 0.6), "db-g1-small": (1, 1.7)}
# Cloud SQL's default of max_connections by the tier's memory in GiB.
CONNECTIONS = ((0.0, 25), (1.0, 50), (3.75, 100), (6.0, 200), (7.5, 400), (15.0, 500), (30.0, 600), (60.0, 800), (120.0, 1000))

CONFIGURATION = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = {connections}
superuser_reserved_connections = 3
reserved_connections = 3
shared_buffers = 16MB
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
cluster_name = '{cluster}'
# A simulated disk may lose what a crash of this machine takes; its size should be that of its data.
fsync = off
wal_level = minimal
max_wal_senders = 0
min_wal_size = 32MB
max_wal_size = 64MB
"""
# Forwarded connections come from 127.0.0.1, others from the server's own address.
ACCESS = """\
# TYPE DATABASE USER ADDRESS METHOD
host all all 127.0.0.0/8 scram-sha-256
"""


def size_of(tier: str) -> tuple[int, float]:
    """vCPUs and memory in GiB of a tier; PlaneFailed for one that there is not."""
    if tier in SHARED:
        return SHARED[tier]
    custom = re.fullmatch(r"db-(?:perf-optimized-N|custom)-(\d+)(?:-(\d+))?", tier)
    if custom is None:
        raise PlaneFailed(
            f"tier: there is no {tier!r}; db-f1-micro, db-g1-small, db-custom-CPUS-MIB and db-perf-optimized-N-CPUS are known"
        )
    cpus, mib = custom.groups()
    return int(cpus), int(mib) / 1024 if mib else int(cpus) * 8.0


def connections_of(tier: str) -> int:
    """Default max_connections of a tier."""
    _, memory_gib = size_of(tier)
    return [connections for least, connections in CONNECTIONS if memory_gib >= least][-1]


class CloudSql:
    """One instance."""

    def __init__(self, directory: Path, host: str, database: str) -> None:
        self.host, self.port = host, PORT
        purposes = {"monitor": "evenkeel_monitor", "application": database, "maintenance": "evenkeel_maintenance", "admin": "cloudsqladmin"}
        self.described = Database(
            host=host, port=PORT, dbname=database, logins={purpose: new_login(user) for purpose, user in purposes.items()}
        )
        self._directory = directory
        self._data = directory / "data"
        self.log = directory / "database.log"
        self._cluster = cluster_name(directory)
        self._postgres = postgres_program()
        self._way = unprivileged(self._postgres)
        self._tier, self._storage_gib = "db-f1-micro", 10
        self._measured: tuple[float, float] | None = None
        """Time and processor seconds of the measurement before."""
        self._process = SupervisedService(
            Service(
                name=directory.name,
                command=(*self._way.prefix, str(self._postgres), "-D", str(self._data)),
                directory=directory,
                log=self.log,
                port=PORT,
                ready=self._ready,
                stop_signals=((signal.SIGINT, 5), (signal.SIGQUIT, 1)),
                words=words(directory),
            ),
            lambda: None,
        )

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process.state == "running"

    async def start(self, tier: str, storage_gib: int) -> None:
        """Start, made on the first start."""
        await self.stop()
        connections = connections_of(tier)
        self._tier, self._storage_gib = tier, storage_gib
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._way.own(self._directory)
        if not self._data.exists():
            await create_cluster(self.described, self._way.prefix, self._directory, self.log)
            write_private(self._data / "pg_hba.conf", ACCESS)
        write_private(
            self._data / "postgresql.conf",
            CONFIGURATION.format(host=self.host, port=PORT, connections=connections, cluster=self._cluster),
        )
        self._way.own(self._data)
        try:
            await self._process.restart()
        except ServiceFailed as error:
            raise PlaneFailed(str(error)) from error

    async def stop(self) -> None:
        """Fast shutdown, then by force."""
        await self._process.end()
        self._measured = None
        await asyncio.to_thread(remove_left, self._data)

    async def restart(self) -> None:
        """Stop and start."""
        await self.start(self._tier, self._storage_gib)

    async def change(self, tier: str, storage_gib: int) -> None:
        """Another tier restarts the server; more storage does not."""
        if tier != self._tier:
            await self.start(tier, storage_gib)
        self._storage_gib = storage_gib

    async def execute(self, database: str, statement: str) -> SqlRows:
        """One statement as the monitor's user, who may end others' queries. PlaneFailed with the server's word."""
        login = self.described.logins["monitor"]
        try:
            async with await psycopg.AsyncConnection.connect(
                host=self.host,
                port=PORT,
                dbname=database,
                user=login.username,
                password=login.password,
                connect_timeout=CONNECT_SECONDS,
                options=f"-c statement_timeout={STATEMENT_SECONDS}s",
                autocommit=True,
            ) as connection:
                # Bytes: whole statements come from outside here, which is what executeSql is for.
                cursor = await connection.execute(statement.encode())
                described = cursor.description
                if described is None:
                    return SqlRows((), ())
                rows = tuple(tuple(None if value is None else str(value) for value in row) for row in await cursor.fetchall())
                return SqlRows(tuple((column.name, column.type_display) for column in described), rows)
        except psycopg.Error as error:
            raise PlaneFailed(str(error).strip() or type(error).__name__) from error

    async def kill(self) -> None:
        """SIGKILL for every process."""
        if self.running:
            self._process.signal(signal.SIGKILL)
        await self.stop()

    async def measure(self) -> SqlMeasures | None:
        """The metrics now; None where the server gives none."""
        main = self._process.main
        if not self.running or main is None:
            return None
        return await asyncio.to_thread(self._measure, main.pid)

    def _measure(self, pid: int) -> SqlMeasures | None:
        cpus, memory_gib = size_of(self._tier)
        try:
            postmaster = psutil.Process(pid)
            processes = [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return None
        spent = resident = 0.0
        backends = 0
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += sum(times[:4])
                resident += process.memory_info().rss - process.memory_info().shared
                # Background processes have no address in their title: `postgres: CLUSTER: USER DATABASE HOST(PORT) STATE`.
                backends += bool(re.search(r"\(\d+\) ", " ".join(process.cmdline()) + " "))
        now = time.monotonic()
        before_at, before = self._measured or (now - 1, spent)
        self._measured = (now, spent)
        return {
            "cpu": min(1.0, max(0.0, (spent - before) / max(now - before_at, 0.01) / cpus)),
            "memory": min(1.0, resident / (memory_gib * 2**30)),
            "disk": _bytes_below(self._data) / (self._storage_gib * MIB_OF_A_GIB << 20),
            "backends": backends,
        }

    async def _ready(self, pid: int) -> bool:
        return is_ready(self._data, pid)


def words(directory: Path) -> tuple[str, ...]:
    """Parts of the command lines of an instance's processes, with which those of another user can be told."""
    return (f"{directory}/", f"postgres: {cluster_name(directory)}: ")


def _bytes_below(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total
