"""The smallest planes: they remember what was done to them."""

from dataclasses import dataclass, field

from compose.google_cloud.planes import MachineMeasures, MemorystoreMeasures, PlaneFailed, SqlMeasures, SqlRows


@dataclass
class MachineInMemory:
    """A machine that is on or off."""

    running: bool = True
    frozen: bool = False
    boots: int = 1
    host: str = "10.0.0.7"
    port: int = 22
    host_key: str = "ssh-ed25519 AAAA"
    user: str = "operator"

    async def boot(self) -> None:
        self.running, self.boots = True, self.boots + 1

    async def shutdown(self) -> None:
        self.running = False

    async def reset(self) -> None:
        self.running, self.frozen, self.boots = True, False, self.boots + 1

    async def freeze(self) -> None:
        self.frozen = True

    async def thaw(self) -> None:
        self.frozen = False

    async def measure(self) -> MachineMeasures | None:
        return None if self.frozen else {"cpu": 0.5, "memory_percent": 60.0, "disk_percent": 30.0}


@dataclass
class DatabaseInMemory:
    """A database that answers one query."""

    running: bool = True
    tier: str = "db-g1-small"
    storage_gib: int = 10
    starts: int = 1
    statements: list[tuple[str, str]] = field(default_factory=list)
    host: str = "10.0.0.8"
    port: int = 5432

    async def start(self, tier: str, storage_gib: int) -> None:
        self.running, self.tier, self.storage_gib, self.starts = True, tier, storage_gib, self.starts + 1

    async def stop(self) -> None:
        self.running = False

    async def restart(self) -> None:
        await self.start(self.tier, self.storage_gib)

    async def change(self, tier: str, storage_gib: int) -> None:
        self.tier, self.storage_gib = tier, storage_gib

    async def execute(self, database: str, statement: str) -> SqlRows:
        self.statements.append((database, statement))
        if not statement.startswith("select"):
            raise PlaneFailed('ERROR: syntax error at or near "selec"')
        return SqlRows((("pid", "int4"), ("query", "text")), (("7", "select 1"), ("8", None)))

    async def kill(self) -> None:
        self.running = False

    async def measure(self) -> SqlMeasures | None:
        return {"cpu": 0.1, "memory": 0.2, "disk": 0.3, "backends": 9} if self.running else None


@dataclass
class CacheInMemory:
    """A cache that knows only how much it stores."""

    running: bool = True
    memory_gib: int = 2
    stored: float = 1.5
    failovers: int = 0
    host: str = "10.0.0.9"
    port: int = 6379
    auth: str | None = "secret-for-tests"

    async def start(self, memory_gib: int) -> None:
        self.running, self.memory_gib, self.stored = True, memory_gib, 0

    async def stop(self) -> None:
        self.running = False

    async def resize(self, memory_gib: int, *, keeps_data: bool) -> None:
        self.memory_gib = memory_gib
        self.stored = self.stored if keeps_data else 0

    async def failover(self) -> None:
        self.failovers += 1

    async def kill(self) -> None:
        self.running = False

    async def stored_gib(self) -> float:
        return self.stored

    async def measure(self) -> MemorystoreMeasures | None:
        ratio = self.stored / self.memory_gib
        return {"usage_ratio": ratio, "system_memory_usage_ratio": ratio, "clients": 3} if self.running else None
