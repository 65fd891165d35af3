"""How probes, tools, runbooks and scenarios are declared. A declaration is a decorated function in its service's module.

The decorators attach a declaration to the function as `.declaration`; `tasks.catalog` finds them by walking the packages.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from blocks.schema import THRESHOLDS_OF_KIND, Kind, Resource, Risk
from tasks.core.declarations import (
    ATTACKS,
    Aim,
    Declaration,
    DeclarationError,
    Ending,
    Fits,
    Growth,
    Ladder,
    NoArgs,
    Probe,
    Remedy,
    RiskOf,
    Runbook,
    RuntimeType,
    Scenario,
    Tool,
    ToolArgs,
    measured,
)
from tasks.core.diagnosis import Cause
from tasks.core.models import Finding, Reading

__all__ = [
    "ATTACKS",
    "MAX_SUMMARY_LENGTH",
    "Aim",
    "Declaration",
    "DeclarationError",
    "Ending",
    "Fits",
    "Growth",
    "Ladder",
    "NoArgs",
    "Probe",
    "Remedy",
    "RiskOf",
    "Runbook",
    "RuntimeType",
    "Scenario",
    "Tool",
    "ToolArgs",
    "declaration_of",
    "measured",
    "probe",
    "runbook",
    "scenario",
    "tool",
]

MAX_SUMMARY_LENGTH = 100


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
