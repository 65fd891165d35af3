"""A Cloud SQL instance for PostgreSQL: what the API says of it, and its database, reached at its private address."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from blocks.kinds import Kind
from blocks.schema import Resource
from tasks.clients.google_access import GoogleCloud
from tasks.clients.google_calls import Repeat
from tasks.clients.google_operations import Operation, sql_operation, sql_operations
from tasks.clients.google_snapshots import CloudInstance
from tasks.clients.login import Login
from tasks.clients.postgres import PostgresClient
from tasks.clients.private_way import PrivateWay
from tasks.core.cloud_sql_sizes import default_connections
from tasks.core.errors import NotApplicable, ProbeBroken, ToolFailed, Unreachable

PORT = 5432
RUNNABLE = "RUNNABLE"


@dataclass(frozen=True)
class SqlInstance:
    """An instance as the API lists it."""

    name: str
    region: str
    state: str
    """Google's word: RUNNABLE also where it was stopped, then `activation` is NEVER."""
    activation: str
    version: str
    tier: str
    storage_gib: int
    grows_by_itself: bool
    availability: str
    settings_version: str
    """Sent along with a change, which is refused where another one came first."""
    connections_flag: int | None
    """max_connections, where a flag sets it."""
    runs_statements: bool
    """Whether executeSql is allowed."""
    private_address: str | None
    public_address: str | None

    @property
    def connections(self) -> int | None:
        """What max_connections is by flag or by the tier's default."""
        return self.connections_flag if self.connections_flag is not None else default_connections(self.tier)


def sql_instance(listed: CloudInstance) -> SqlInstance:
    """Of a DatabaseInstance of the Admin API."""
    settings = listed.raw.get("settings") or {}
    flags = {one.get("name"): one.get("value") for one in settings.get("databaseFlags") or ()}
    addresses = {one.get("type"): one.get("ipAddress") for one in listed.raw.get("ipAddresses") or ()}
    return SqlInstance(
        name=listed.name,
        region=listed.location,
        state=listed.state,
        activation=settings.get("activationPolicy", "ALWAYS"),
        version=listed.raw.get("databaseVersion", ""),
        tier=settings.get("tier", ""),
        storage_gib=int(settings.get("dataDiskSizeGb") or 0),
        grows_by_itself=bool(settings.get("storageAutoResize")),
        availability=settings.get("availabilityType", ""),
        settings_version=str(settings.get("settingsVersion") or ""),
        connections_flag=int(flags["max_connections"]) if "max_connections" in flags else None,
        runs_statements=settings.get("dataApiAccess") == "ALLOW_DATA_API",
        private_address=addresses.get("PRIVATE"),
        public_address=addresses.get("PRIMARY"),
    )


@dataclass
class CloudSqlClient:
    """One instance. Its connections are opened when they are first needed, and again where its address or the way to it has changed."""

    resource: Resource
    cloud: GoogleCloud
    way: PrivateWay = field(default_factory=PrivateWay)
    monitor: Login | None = None
    application: Login | None = None
    maintenance: Login | None = None
    _database: PostgresClient | None = field(default=None, init=False, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def instance(self, *, fresh: bool = False) -> SqlInstance:
        """The instance as listed within the last second, or `fresh`. ProbeBroken where there is none of that name."""
        if fresh:
            self.cloud.forget(Kind.CLOUD_SQL)
        found = (await self.cloud.snapshot(Kind.CLOUD_SQL)).find(self.resource)
        if found is None:
            raise ProbeBroken(f"address: project {self.cloud.project} has no Cloud SQL instance {self.resource.address}")
        if not str(found.raw.get("databaseVersion", "")).startswith("POSTGRES"):
            raise ProbeBroken(f"{self.resource.name}: {found.raw.get('databaseVersion')} is not PostgreSQL, which alone is known here")
        return sql_instance(found)

    @property
    def has_login(self) -> bool:
        """Whether the inventory says how to log into the database; without, only the API and Cloud Monitoring are asked."""
        return self.monitor is not None

    async def database(self, instance: SqlInstance) -> PostgresClient:
        """The database at its present address. NotApplicable: no login is declared. Unreachable, ProbeBroken: there is no way to it."""
        if self.monitor is None:
            raise NotApplicable(f"{self.resource.name}: the inventory names no login for the database; add `logins.monitor`")
        private, public = instance.private_address, instance.public_address
        address = (private or public) if self.way.through is not None else (public or private)
        if address is None:
            raise Unreachable(f"{self.resource.name}: the instance has no address yet")
        host, port = await self.way.to(address, PORT)
        target = f"{host}:{port}/{self.resource.cloud.database}"
        async with self._turn:
            if self._database is None or self._database.resource.address != target:
                await self._close_database()
                self._database = PostgresClient(
                    resource=self.resource.model_copy(update={"address": target}),
                    monitor=self.monitor,
                    application=self.application,
                    maintenance=self.maintenance,
                )
            return self._database

    async def operations(self, *, seconds: float) -> list[Operation]:
        """The instance's operations, newest first."""
        return await self.cloud.call(
            f"operations of {self.resource.name}", sql_operations(self.cloud, self.resource.address), seconds=seconds
        )

    async def carry_out(self, what: str, type_of_operation: str, request: Callable[[Any], Any], *, seconds: float) -> str:
        """Start an operation with the request that `request` makes of the instances' API, or take up the like of it; wait for its end."""

        def send(timeout: float) -> Operation:
            return sql_operation(self.cloud, self.cloud.execute(request(self.cloud.sql.instances()), timeout))

        return await self.cloud.carry_out(
            f"{what} of {self.resource.name}",
            Kind.CLOUD_SQL,
            type_of_operation,
            listed=sql_operations(self.cloud, self.resource.address),
            send=send,
            seconds=seconds,
        )

    async def execute(self, statement: str, *, changes: bool, seconds: float = 30) -> list[dict[str, Any]]:
        """Rows of one statement by the API's executeSql, as the identity's own database user: every value a text or None.

        Where the instance allows it (dataApiAccess) and has IAM authentication on; it needs no way to the private address.
        """
        body = {"sqlStatement": statement, "database": self.resource.cloud.database, "autoIamAuthn": True}

        def send(timeout: float) -> Any:
            request = self.cloud.sql.instances().executeSql(project=self.cloud.project, instance=self.resource.address, body=body)
            return self.cloud.execute(request, timeout)

        repeat = Repeat.NEVER if changes else Repeat.READ
        answer = await self.cloud.call(f"executeSql on {self.resource.name}", send, repeat=repeat, seconds=seconds)
        refused = answer.get("status") or {}
        if refused.get("code"):
            raise ToolFailed(f"{self.resource.name}: the database refused: {str(refused.get('message', ''))[:300]}")
        return [row for result in answer.get("results") or () for row in _rows(result)]

    async def close(self) -> None:
        """Close the database's connections; the project and the way are closed by whoever opened them."""
        async with self._turn:
            await self._close_database()

    async def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await database.close()


def _rows(result: dict[str, Any]) -> Sequence[dict[str, Any]]:
    names = [str(column.get("name")) for column in result.get("columns") or ()]
    return [
        {
            name: None if value.get("nullValue") else value.get("value", "")
            for name, value in zip(names, row.get("values") or (), strict=False)
        }
        for row in result.get("rows") or ()
    ]
