"""The shapes of the configuration: an inventory of resources, their thresholds and the rules of what may be done to them.

Plain pydantic, no Prefect: the pure core builds on it. Secrets are never part of it; a login names only its user.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer, model_validator

from blocks.dependencies import find_circle
from blocks.model import Model, Name
from blocks.nginx_declared import NginxDeclared
from blocks.runtimes import AnyRuntime, ContainerName, ContainerRuntime, ProcessRuntime


class Kind(StrEnum):
    """What a resource is; probes, tools and runbooks are declared for a kind."""

    REDIS = "redis"
    POSTGRES = "postgres"
    NGINX = "nginx"
    HTTP = "http"
    CONTAINER = "container"


class Role(StrEnum):
    """What the data of a resource is worth: a cache may be emptied, a store never without a person."""

    CACHE = "cache"
    STORE = "store"


class Risk(StrEnum):
    """What a tool can do to a resource, from nothing to loss."""

    READ_ONLY = "read_only"
    REVERSIBLE = "reversible"
    DISRUPTIVE = "disruptive"
    DESTRUCTIVE = "destructive"


class Autonomy(StrEnum):
    """How far the system may go by itself."""

    OBSERVE = "observe"
    PROPOSE = "propose"
    APPROVE = "approve"
    AUTO = "auto"


class Thresholds(Model):
    """Limits above which a resource counts as degraded; each applies to the kinds that THRESHOLDS_OF_KIND names."""

    memory_percent: float = Field(95, gt=0, le=100, description="Share of the memory limit in use, in percent (Redis, container).")
    clients_percent: float = Field(90, gt=0, le=100, description="Share of maxclients connected, in percent (Redis).")
    connections_percent: float = Field(80, gt=0, le=100, description="Share of the connections in use, in percent (PostgreSQL, Nginx).")
    idle_in_transaction_seconds: float = Field(60, gt=0, description="Oldest idle transaction, in seconds (PostgreSQL).")
    blocked_seconds: float = Field(10, gt=0, description="Longest wait for a lock, in seconds (PostgreSQL).")
    query_seconds: float = Field(3600, gt=0, description="Longest running statement of a client, in seconds (PostgreSQL).")
    scans_per_second: float = Field(10, gt=0, description="How often a large table is read whole, per second (PostgreSQL).")
    dead_rows_percent: float = Field(50, gt=0, le=100, description="Dead rows of a table without autovacuum, in percent (PostgreSQL).")
    retained_wal_mib: float = Field(5120, gt=0, description="WAL that an unused replication slot keeps, in MiB (PostgreSQL).")
    latency_seconds: float = Field(2, gt=0, description="Time for the symptom check to answer, in seconds.")
    horizon_seconds: float = Field(
        600, ge=0, description="How far ahead a share that rises is predicted to cross its threshold, in seconds; 0: not at all."
    )
    cpu_percent: float = Field(95, gt=0, le=100, description="Share of the CPU limit in use, in percent (container).")
    throttled_percent: float = Field(50, gt=0, le=100, description="Share of the scheduler's periods that were cut short (container).")
    restarts_per_hour: int = Field(3, ge=1, description="Restarts by itself within an hour (container).")

    @model_serializer(mode="wrap")
    def _only_what_was_given(self, full: SerializerFunctionWrapHandler) -> dict[str, float]:
        # A default written out would read back as given, also for kinds that it does not apply to.
        return {name: value for name, value in full(self).items() if name in self.model_fields_set}


_OF_POSTGRES = ("query_seconds", "scans_per_second", "dead_rows_percent", "retained_wal_mib")
THRESHOLDS_OF_KIND: dict[Kind, frozenset[str]] = {
    Kind.REDIS: frozenset({"memory_percent", "clients_percent", "latency_seconds", "horizon_seconds"}),
    Kind.POSTGRES: frozenset(
        {"connections_percent", "idle_in_transaction_seconds", "blocked_seconds", "latency_seconds", *_OF_POSTGRES, "horizon_seconds"}
    ),
    Kind.NGINX: frozenset({"connections_percent", "latency_seconds", "horizon_seconds"}),
    Kind.HTTP: frozenset({"latency_seconds"}),
    Kind.CONTAINER: frozenset({"memory_percent", "cpu_percent", "throttled_percent", "restarts_per_hour", "horizon_seconds"}),
}


Purpose = Literal["monitor", "application", "maintenance", "admin"]
"""What a login is for: to measure, to be the application, to repair what the application owns; `admin` injects faults into a lab."""


class Maintenance(Model):
    """A time in which nothing is opened or done for a resource."""

    until: datetime = Field(description="End of the window, with a time zone.")
    reason: str = ""

    @model_validator(mode="after")
    def _aware(self) -> Self:
        if self.until.tzinfo is None:
            raise ValueError("until: give the time zone, for example 2026-01-31T06:00:00Z")
        return self


class Limits(Model):
    """How far tools may change a resource's capacity."""

    memory_mib: int | None = Field(None, ge=16, description="Largest maxmemory (Redis) or memory limit (container), in MiB.")
    connections: int | None = Field(None, ge=10, description="Largest max_connections or worker_connections.")
    cpus: float | None = Field(None, gt=0, description="Largest CPU limit, in cores (container).")
    replicas: int | None = Field(None, ge=1, description="Most containers of the same compose service.")


class ToolCall(Model):
    """A tool with its arguments, as a configuration names it."""

    tool: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class Resource(Model):
    """One server that is kept healthy."""

    name: Name
    kind: Kind
    address: str = Field(
        description="host:port for redis, host:port/database for postgres, http(s)://host:port/path for nginx and http, "
        "the container's name for container."
    )
    role: Role = Field(Role.STORE, description="cache: its data may be dropped; store: never without a person.")
    depends_on: tuple[Name, ...] = ()
    thresholds: Thresholds = Thresholds()
    limits: Limits = Limits()
    runtime: AnyRuntime | None = Field(
        None,
        description="How the service is started and stopped; none: it can't be restarted. A container's default is the local engine.",
    )
    config_path: str | None = Field(
        None,
        description="The configuration file that tools may edit (Nginx; PostgreSQL: its postgresql.auto.conf), "
        "or read as what is declared (Redis).",
    )
    primary: bool = Field(False, description="The server takes writes: that it is a replica of another is an accident (Redis).")
    nginx: NginxDeclared = NginxDeclared()
    logins: dict[Purpose, str] = Field(default_factory=dict, description="Purpose -> user name; the password is in the login's own block.")
    maintenance: Maintenance | None = None
    baseline: tuple[ToolCall, ...] = Field((), description="Tool calls with which `reset` brings a lab's resource back to its baseline.")
    autonomy: Autonomy | None = Field(None, description="Overrides the inventory's autonomy.")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        misplaced = sorted(self.thresholds.model_fields_set - THRESHOLDS_OF_KIND[self.kind])
        if misplaced:
            allowed = ", ".join(sorted(THRESHOLDS_OF_KIND[self.kind]))
            raise ValueError(f"thresholds.{misplaced[0]} does not apply to kind {self.kind}; these do: {allowed}")
        if self.kind is Kind.CONTAINER:
            self._is_one_container()
            return self
        is_url = self.address.startswith(("http://", "https://"))
        if is_url != (self.kind in {Kind.NGINX, Kind.HTTP}):
            wanted = "an http(s):// URL" if self.kind in {Kind.NGINX, Kind.HTTP} else "host:port"
            raise ValueError(f"address: kind {self.kind} takes {wanted}, not {self.address!r}")
        if self.kind is not Kind.NGINX and self.nginx != NginxDeclared():
            raise ValueError(f"nginx: does not apply to kind {self.kind}; remove it")
        if self.kind is not Kind.REDIS and self.primary:
            raise ValueError(f"primary: does not apply to kind {self.kind}; remove it")
        if self.kind is Kind.POSTGRES and "monitor" not in self.logins:
            raise ValueError("logins.monitor: PostgreSQL needs a monitoring login with pg_monitor; add it")
        return self

    def _is_one_container(self) -> None:
        if isinstance(self.runtime, ProcessRuntime):
            raise ValueError("runtime: kind container takes type: container")  # noqa: TRY004 - pydantic catches no TypeError
        try:
            TypeAdapter(ContainerName).validate_python(self.address)
        except ValidationError as error:
            raise ValueError(f"address: kind container takes the container's name, not {self.address!r}") from error
        if self.runtime is not None and self.runtime.container != self.address:
            raise ValueError(f"runtime.container: is {self.runtime.container!r} and the address {self.address!r}; write the same name")

    @property
    def container(self) -> ContainerRuntime | None:
        """The container that this is or runs in, if it does."""
        if self.kind is Kind.CONTAINER and self.runtime is None:
            return ContainerRuntime(container=self.address)
        return self.runtime if isinstance(self.runtime, ContainerRuntime) else None


class Rules(Model):
    """What may be done without a person. Evaluated outside the planner, by `tasks.core.policy`."""

    autonomy: Autonomy = Autonomy.AUTO
    autonomy_of_risk: dict[Risk, Autonomy] = Field(
        default_factory=dict, description="Risk -> how far steps of that risk may go; the most cautious of all that apply counts."
    )
    max_steps: int = Field(4, ge=1, le=20, description="Steps of one plan.")
    max_retries: int = Field(2, ge=0, le=2, description="Further plans after the first failed one.")
    recover_seconds: float = Field(10, gt=0, le=600, description="How long a fix may take to show in the readings.")
    settle_seconds: float = Field(10, ge=0, le=600, description="How long the readings must stay healthy for a fix to count.")
    max_fixes_per_hour: int = Field(20, ge=1, description="Remediations an hour for one resource; more ask for a person.")
    max_fixes_per_hour_overall: int = Field(100, ge=1, description="Remediations an hour for the whole inventory; more ask for a person.")
    cooldown_seconds: float = Field(
        300, ge=0, description="Time after a disruptive or destructive step in which the same tool on the same resource asks for a person."
    )
    approval_seconds: float = Field(3600, gt=0, le=7 * 86400, description="How long a person has to answer; then it is escalated.")
    escalation_pause_seconds: float = Field(
        900, ge=0, description="After an escalation no new remediation of the resource is opened for so long, unless it was healthy again."
    )


class Shop(Model):
    """Where the lab's sample shop is steered: its load endpoints and its traffic's counters."""

    url: str = Field(description="URL of the shop itself, not of the Nginx in front of it.")
    traffic_url: str = Field(description="URL of the traffic generator's counters.")


class Inventory(Model):
    """The resources that one monitor keeps healthy."""

    name: Name
    lab: bool = Field(False, description="True only where faults may be injected.")
    shop: Shop | None = Field(None, description="The lab's sample shop, through which scenarios inject faults.")
    resources: tuple[Resource, ...] = Field(min_length=1)
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [resource.name for resource in self.resources]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"resources: the name {doubles[0]!r} stands twice; names must differ")
        known = set(names)
        for resource in self.resources:
            if "admin" in resource.logins and not self.lab:
                raise ValueError(f"resources.{resource.name}.logins.admin: only a lab has this login, to inject faults; remove it")
            for other in resource.depends_on:
                if other not in known:
                    raise ValueError(f"resources.{resource.name}.depends_on: no resource is named {other!r}; known: {', '.join(names)}")
        circle = find_circle({resource.name: resource.depends_on for resource in self.resources})
        if circle:
            raise ValueError(f"depends_on: a circle: {' -> '.join(circle)}; remove one of these dependencies")
        return self

    def resource(self, name: str) -> Resource:
        """The resource of that name; ValueError names the known ones."""
        for resource in self.resources:
            if resource.name == name:
                return resource
        known = ", ".join(resource.name for resource in self.resources)
        raise ValueError(f"resource: no {name!r} in inventory {self.name!r}; known: {known}")
