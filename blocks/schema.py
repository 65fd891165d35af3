"""The shapes of the configuration: an inventory of resources, their thresholds and the rules of what may be done to them.

Plain pydantic, no Prefect: the pure core builds on it. Secrets are never part of it; a login names only its user.
"""

import re
from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator

from blocks.cloud_declared import CloudDeclared
from blocks.dependencies import find_circle
from blocks.kinds import CLOUD_KINDS, Kind
from blocks.model import Model, Name
from blocks.nginx_declared import NginxDeclared
from blocks.runtimes import AnyRuntime, ContainerName, ContainerRuntime, ProcessRuntime
from blocks.thresholds import THRESHOLDS_OF_KIND, Thresholds

__all__ = ["CLOUD_KINDS", "THRESHOLDS_OF_KIND", "Kind", "Thresholds"]


INSTANCE = re.compile(r"[a-z]([-a-z0-9]{0,96}[a-z0-9])?")


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
    memory_gib: int | None = Field(None, ge=1, description="Largest memory of the instance, in GiB (Memorystore).")
    storage_gib: int | None = Field(None, ge=10, description="Largest storage of the instance, in GiB (Cloud SQL).")
    tiers: tuple[str, ...] | None = Field(None, description="The tiers that may be chosen, the smallest first (Cloud SQL).")


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
        "the container's name for container, the instance's name for compute_engine, cloud_sql and memorystore."
    )
    pool: Name | None = Field(
        None, description="The work pool whose monitors watch it, such as one for each network; none: the default one."
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
    cloud: CloudDeclared = CloudDeclared()
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
        if self.kind not in CLOUD_KINDS and self.cloud != CloudDeclared():
            raise ValueError(f"cloud: does not apply to kind {self.kind}; remove it")
        if self.kind is Kind.CONTAINER:
            self._is_one_container()
            return self
        if self.kind in CLOUD_KINDS:
            self._is_one_instance()
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

    def _is_one_instance(self) -> None:
        if INSTANCE.fullmatch(self.address) is None:
            raise ValueError(f"address: kind {self.kind} takes the instance's name, not {self.address!r}")
        if self.runtime is not None:
            raise ValueError(f"runtime: kind {self.kind} is steered through Google's API; remove it")
        if self.cloud.ssh is not None and self.kind is not Kind.COMPUTE_ENGINE:
            raise ValueError(f"cloud.ssh: does not apply to kind {self.kind}; name the machine to go through in cloud.through")
        if self.cloud.through is not None and self.kind is Kind.COMPUTE_ENGINE:
            raise ValueError("cloud.through: does not apply to kind compute_engine; remove it")
        if self.cloud.ssh is not None and self.cloud.ssh.by == "asyncssh" and "monitor" not in self.logins:
            raise ValueError("logins.monitor: SSH needs a user, and as its password the private key; add it")

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
        900,
        ge=0,
        description="After an escalation no new remediation of the resource is opened for so long, unless it was healthy again, "
        "or the inventory or its rules were changed.",
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
        known = Counter(resource.name for resource in self.resources)
        doubles = sorted(name for name, count in known.items() if count > 1)
        if doubles:
            raise ValueError(f"resources: the name {doubles[0]!r} stands twice; names must differ")
        for resource in self.resources:
            if "admin" in resource.logins and not self.lab:
                raise ValueError(f"resources.{resource.name}.logins.admin: only a lab has this login, to inject faults; remove it")
            for other in resource.depends_on:
                if other not in known:
                    raise ValueError(f"resources.{resource.name}.depends_on: no resource is named {other!r}; known: {', '.join(known)}")
        self._go_through_machines()
        circle = find_circle({resource.name: resource.depends_on for resource in self.resources})
        if circle:
            raise ValueError(f"depends_on: a circle: {' -> '.join(circle)}; remove one of these dependencies")
        return self

    def _go_through_machines(self) -> None:
        machines = {one.name for one in self.resources if one.kind is Kind.COMPUTE_ENGINE and one.cloud.ssh is not None}
        for resource in self.resources:
            if resource.cloud.through is not None and resource.cloud.through not in machines:
                known = ", ".join(sorted(machines)) or "none"
                raise ValueError(
                    f"resources.{resource.name}.cloud.through: names no compute_engine resource with cloud.ssh; known: {known}"
                )

    def resource(self, name: str) -> Resource:
        """The resource of that name; ValueError names the known ones."""
        for resource in self.resources:
            if resource.name == name:
                return resource
        known = ", ".join(resource.name for resource in self.resources)
        raise ValueError(f"resource: no {name!r} in inventory {self.name!r}; known: {known}")
