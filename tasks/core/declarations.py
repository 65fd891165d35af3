"""What is declared: tools, probes, runbooks and scenarios as values. `tasks.core.declare` has the decorators that make them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from blocks.schema import Kind, Resource, Risk
from tasks.core.diagnosis import Cause, causes_of, evidence_of
from tasks.core.models import Change, Context, Finding, Observation, Reading, Step


class DeclarationError(ValueError):
    """A declaration breaks the conventions; the message names it and the remedy."""


class ToolArgs(BaseModel):
    """Base of every tool's arguments: feeds the planner's schema, the forms, the policy and the record."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NoArgs(ToolArgs):
    """For tools that take nothing."""


@dataclass(frozen=True)
class Growth:
    """A capacity that a remediation may only raise: above what is measured, and up to the resource's limit."""

    argument: str
    measured: str
    """The value of the probe's reading that is in force."""
    limit: Literal["memory_mib", "connections", "cpus", "replicas", "memory_gib", "storage_gib"]
    """The field of the resource's limits."""
    share: Literal["memory_percent", "connections_percent", "cpu_percent", "disk_percent"]
    """The value of the reading, and its threshold: how much of the capacity is in use, in percent."""
    unset_limit: int | None = None
    """Holds where the inventory sets no limit; none: a person is asked there."""


@dataclass(frozen=True)
class Ladder:
    """A size by name, which a remediation only takes upwards among those that the inventory declares, the smallest first."""

    argument: str
    measured: str
    """The value of the probe's reading that is in force."""
    limit: Literal["tiers"]
    """The field of the resource's limits."""


Aim = Callable[[Mapping[str, JsonValue], Observation], str]
"""Arguments of a step and what was measured -> whom the step hits that was not measured to be the trouble; empty: nobody."""
RiskOf = Callable[[Observation], Risk]
"""What was measured -> the risk there, never more than the tool's own."""
Fits = Callable[[Observation], bool]
"""What was measured -> whether a tool finds something to do there without a person."""


def measured(*symptoms: str) -> Fits:
    """Fits where one of these symptoms is measured."""
    return lambda observation: any(finding.symptom in symptoms for finding in observation.findings)


@dataclass(frozen=True)
class Tool:
    """A typed action on one kind of resource."""

    name: str
    service: Kind
    risk: Risk
    title: str
    summary: str
    args_model: type[ToolArgs]
    function: Callable[[Any, Any], Awaitable[Change]]
    undo: str | None
    timeout_seconds: float
    symptoms: frozenset[str] = frozenset()
    """The measured precondition: one of these symptoms must show for the policy to let the tool run in a remediation."""
    growth: tuple[Growth, ...] = ()
    aim: Aim | None = None
    """Holds the arguments against what was measured: whoever was not measured to be the trouble is hit only if a person agrees."""
    after: tuple[str, ...] = ()
    """Milder tools: while one of them is a remedy, fits and was not tried in this remediation, a person is asked."""
    fits: Fits | None = None
    """Whether it counts as a milder tool that comes first; none: always. A growth that can't suffice never does.

    Of a reading that takes arguments: whether a model is offered it for its first plan; none: only after one that did not help.
    """
    permissions: frozenset[str] = frozenset()
    """What the identity has to be permitted for it in Google Cloud, such as compute.instances.start."""
    cost: str = ""
    """What it costs from then on, in one sentence; shown where a person is asked. Empty: nothing."""
    ladder: Ladder | None = None
    risk_of: RiskOf | None = None
    """Where the same call harms one kind of resource and not another; `risk` is the worst of them."""
    loss: str = ""
    """What could be lost, where its risk does not say it right."""
    asks: str = ""
    """Why a person is asked wherever it is planned; empty: that depends on the rules."""


@dataclass(frozen=True)
class Probe:
    """Measures (I/O) and judges (pure) one kind of resource."""

    service: Kind
    title: str
    summary: str
    measure: Callable[[Any, Resource], Awaitable[Reading]]
    judge: Callable[[Reading, Resource], tuple[Finding, ...]]
    headline: str
    timeout_seconds: float
    trends: Mapping[str, str] = field(default_factory=dict)
    """Value of the reading, which is also the name of its threshold -> symptom that is predicted where it rises towards it."""
    permissions: frozenset[str] = frozenset()
    """What the identity has to be permitted for it in Google Cloud, such as compute.instances.list."""


@dataclass(frozen=True)
class Remedy:
    """One option of a runbook: the steps, and the finding they follow from. Without steps: to wait, for somebody is at work already."""

    diagnosis: str
    steps: tuple[Step, ...]
    expected: str
    evidence: tuple[str, ...] = ()
    patience_seconds: float = 0
    """How long to wait."""


@dataclass(frozen=True)
class Runbook:
    """Symptoms of one kind, and remedies for them, least destructive first."""

    name: str
    service: Kind
    symptoms: frozenset[str]
    title: str
    summary: str
    function: Callable[[Context], Iterator[Remedy]]


class Ending(StrEnum):
    """How a scenario is expected to end, and how one did."""

    HEALED = "healed"
    ESCALATED = "escalated"
    """A person was called or asked, and nothing was left changed without one."""
    LEFT_ALONE = "left alone"
    """Nothing was changed: no incident, or one that needed no action."""
    NOT_DETECTED = "not detected"
    FAILED = "failed"


RuntimeType = Literal["process", "container"]
ATTACKS = range(51, 56)
"""The catalogue's numbers of text that demands a harmful tool."""


@dataclass(frozen=True)
class Scenario:
    """A fault: how it is injected and taken back, and what is expected of whoever meets it. Planners never see it."""

    name: str
    title: str
    summary: str
    resource_kind: Kind
    symptoms: frozenset[str]
    """One of them must show after the injection; empty: nothing is wrong."""
    function: Callable[[Any], AsyncGenerator[None]]
    expects: Ending
    forbidden_tools: frozenset[str] = frozenset()
    target: str = ""
    """Name of the resource that is hurt; empty: the first of the kind."""
    also: frozenset[str] = frozenset()
    """Further resources that are hurt, which must be well again too."""
    runtimes: frozenset[RuntimeType] = frozenset({"process", "container"})
    """What has to run the resource for the fault to be possible."""
    catalogue: tuple[int, ...] = ()
    """Its numbers in the catalogue of faults."""
    cause: Cause | None = None
    """The category of the root cause; none: those that its symptoms stand for."""
    ruled_out: frozenset[Cause] = frozenset()
    """What a diagnosis must not conclude."""

    @property
    def causes(self) -> frozenset[Cause]:
        """The categories of which a diagnosis names at least one."""
        return causes_of(self.symptoms) if self.cause is None else frozenset({self.cause})

    @property
    def evidence(self) -> frozenset[str]:
        """The readings of which a diagnosis cites at least one."""
        return evidence_of(self.symptoms)

    @property
    def is_attack(self) -> bool:
        """Whether it also tries to make the planner do harm."""
        return any(number in ATTACKS for number in self.catalogue)


Declaration = Tool | Probe | Runbook | Scenario
