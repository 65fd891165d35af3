"""How probes, tools, runbooks and scenarios are declared. A declaration is a decorated function in its service's module.

The decorators attach a declaration to the function as `.declaration`; `tasks.catalog` finds them by walking the packages.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from blocks.schema import THRESHOLDS_OF_KIND, Kind, Resource, Risk
from tasks.core.diagnosis import Cause, causes_of, evidence_of
from tasks.core.models import Change, Context, Finding, Observation, Reading, Step

MAX_SUMMARY_LENGTH = 100


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
F = TypeVar("F", bound=Callable[..., Any])


def declaration_of(function: object) -> Declaration | None:
    """The declaration that a decorator attached, if any."""
    found = getattr(function, "declaration", None)
    return found if isinstance(found, Tool | Probe | Runbook | Scenario) else None


def _first_line(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", repr(function))
    lines = (inspect.getdoc(function) or "").splitlines()
    if not lines or not lines[0]:
        raise DeclarationError(f"{name}: write a docstring; its first line is what planners and people read")
    return lines[0]


def _attach(function: F, declaration: Declaration) -> F:
    function.declaration = declaration  # type: ignore[attr-defined]
    return function


def tool(
    *,
    service: Kind,
    risk: Risk,
    title: str,
    undo: str | None = None,
    timeout_seconds: float = 10,
    symptoms: Collection[str] = (),
    growth: Growth | tuple[Growth, ...] = (),
    aim: Aim | None = None,
    after: tuple[str, ...] = (),
    fits: Fits | None = None,
    permissions: Collection[str] = (),
    cost: str = "",
    ladder: Ladder | None = None,
    risk_of: RiskOf | None = None,
    loss: str = "",
    asks: str = "",
) -> Callable[[F], F]:
    """Declare `async (client, args) -> Change` as a tool. A REVERSIBLE tool names its undo.

    `symptoms` are what it is a remedy for: in a remediation it runs only while one of them is measured.
    `growth` names the argument that is a capacity, which a remediation only raises; of several, those that are given.
    `aim` says whom a step hits without need.
    `after` names milder tools that come first, and `fits` tells where this one, as the milder, finds nothing to do.
    `permissions` are what it needs in Google Cloud, and `cost` says in one sentence what it costs from then on.
    `ladder` names the argument that is a size by name. `risk_of` lowers the risk by what was measured, `loss` says what could be lost
    where the risk does not, and `asks` why a person decides in any case.
    """

    def decorate(function: F) -> F:
        name = function.__name__
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
        if len(parameters) != 2:
            raise DeclarationError(f"{name}: a tool takes (client, args)")
        args_model = parameters[1].annotation
        if not (isinstance(args_model, type) and issubclass(args_model, ToolArgs)):
            raise DeclarationError(f"{name}: annotate its second parameter with a ToolArgs model")
        if len(_first_line(function)) > MAX_SUMMARY_LENGTH:
            raise DeclarationError(f"{name}: shorten the docstring's first line to {MAX_SUMMARY_LENGTH} characters")
        if (risk is Risk.REVERSIBLE) != (undo is not None):
            raise DeclarationError(f"{name}: exactly the REVERSIBLE tools name an undo")
        summary = _first_line(function)
        declared = Tool(
            name=name,
            service=service,
            risk=risk,
            title=title,
            summary=summary,
            args_model=args_model,
            function=function,
            undo=undo,
            timeout_seconds=timeout_seconds,
            symptoms=frozenset(symptoms),
            growth=(growth,) if isinstance(growth, Growth) else growth,
            aim=aim,
            after=after,
            fits=fits,
            permissions=frozenset(permissions),
            cost=cost,
            ladder=ladder,
            risk_of=risk_of,
            loss=loss,
            asks=asks,
        )
        return _attach(function, declared)

    return decorate


def probe(
    *,
    service: Kind,
    title: str,
    judge: Callable[[Reading, Resource], tuple[Finding, ...]],
    headline: str,
    timeout_seconds: float = 2,
    trends: Mapping[str, str] | None = None,
    permissions: Collection[str] = (),
) -> Callable[[F], F]:
    """Declare `async measure(client, resource) -> Reading` as the probe of a kind; `headline` names the value that tables show.

    `trends` names the values that are watched for a rise, each with the symptom of its threshold, which has the value's name.
    `permissions` are what it needs in Google Cloud.
    """
    watched, known = dict(trends or {}), THRESHOLDS_OF_KIND[service]
    for name in watched:
        if name not in known:
            raise DeclarationError(f"trends: {name!r} is no threshold of {service}; known: {', '.join(sorted(known))}")

    def decorate(function: F) -> F:
        declared = Probe(
            service=service,
            title=title,
            summary=_first_line(function),
            measure=function,
            judge=judge,
            headline=headline,
            timeout_seconds=timeout_seconds,
            trends=watched,
            permissions=frozenset(permissions),
        )
        return _attach(function, declared)

    return decorate


def runbook(*, service: Kind, symptoms: set[str], title: str) -> Callable[[F], F]:
    """Declare a generator of remedies, least destructive first; the first one not tried yet becomes the plan."""

    def decorate(function: F) -> F:
        return _attach(function, Runbook(function.__name__, service, frozenset(symptoms), title, _first_line(function), function))

    return decorate


def scenario(
    *,
    title: str,
    resource_kind: Kind,
    symptoms: Collection[str],
    expects: Ending = Ending.HEALED,
    forbidden_tools: Collection[str] = (),
    target: str = "",
    also: Collection[str] = (),
    runtimes: Collection[RuntimeType] = ("process", "container"),
    catalogue: tuple[int, ...] = (),
    cause: Cause | None = None,
    ruled_out: Collection[Cause] = (),
) -> Callable[[F], F]:
    """Declare an async generator over a stage as a scenario: inject, `yield`, check, take back in `finally`.

    The runner itself sees to it that one of `symptoms` appears after the injection, and that the steady state returns. What stands
    after the `yield` runs only once the remediation is said to have healed, and raises `Unhealed` where that is not true.
    `cause` is the category of the root cause where the symptoms alone do not say it; `ruled_out` are tempting wrong ones.
    """

    def decorate(function: F) -> F:
        declared = Scenario(
            name=function.__name__,
            title=title,
            summary=_first_line(function),
            resource_kind=resource_kind,
            symptoms=frozenset(symptoms),
            function=function,
            expects=expects,
            forbidden_tools=frozenset(forbidden_tools),
            target=target,
            also=frozenset(also),
            runtimes=frozenset(runtimes),
            catalogue=catalogue,
            cause=cause,
            ruled_out=frozenset(ruled_out),
        )
        return _attach(function, declared)

    return decorate
