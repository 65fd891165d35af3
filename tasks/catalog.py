"""Everything that is declared: probes, tools, runbooks and scenarios, found by walking their packages."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, ModuleType
from typing import TypeVar

from blocks.schema import Kind, Risk
from tasks.core.declare import Declaration, DeclarationError, Probe, Runbook, Scenario, Tool, declaration_of
from tasks.core.models import Observation, ToolSummary

PACKAGES = ("tasks.probes", "tasks.tools", "tasks.runbooks", "tasks.scenarios")
Named = TypeVar("Named", Tool, Runbook, Scenario)


@dataclass(frozen=True)
class Catalog:
    """The declarations by name, probes by kind."""

    probes: MappingProxyType[Kind, Probe]
    tools: MappingProxyType[str, Tool]
    runbooks: MappingProxyType[str, Runbook]
    scenarios: MappingProxyType[str, Scenario]

    def tools_for(self, kind: Kind) -> dict[str, Tool]:
        """The tools of one kind, by name."""
        return {name: tool for name, tool in self.tools.items() if tool.service is kind}

    def offered(self, observation: Observation) -> tuple[ToolSummary, ...]:
        """What a planner may choose from: what reads, and what is a remedy for a measured symptom. The policy refuses the others anyway."""
        shown = {finding.symptom for finding in observation.findings}
        tools = self.tools_for(observation.kind).values()
        return tuple(summarise(tool) for tool in tools if tool.risk is Risk.READ_ONLY or tool.symptoms & shown)

    def runbooks_for(self, kind: Kind, symptoms: tuple[str, ...]) -> list[Runbook]:
        """The runbooks for any of the symptoms, in the symptoms' order."""
        ordered: dict[str, Runbook] = {}
        for symptom in symptoms:
            for book in self.runbooks.values():
                if book.service is kind and symptom in book.symptoms:
                    ordered.setdefault(book.name, book)
        return list(ordered.values())


def summarise(tool: Tool) -> ToolSummary:
    """What a planner is told about a tool."""
    return ToolSummary(
        name=tool.name,
        summary=tool.summary,
        risk=tool.risk,
        undo=tool.undo,
        symptoms=tuple(sorted(tool.symptoms)),
        after=tool.after,
        args_schema=tool.args_model.model_json_schema(),
    )


@cache
def load_catalog() -> Catalog:
    """Every declaration; DeclarationError where two share a name, a kind has two probes, or an undo is missing."""
    found = [declared for package in PACKAGES for declared in _declarations(importlib.import_module(package))]
    probes: dict[Kind, Probe] = {}
    for declared in found:
        if isinstance(declared, Probe):
            if declared.service in probes:
                raise DeclarationError(f"kind {declared.service}: two probes; keep one")
            probes[declared.service] = declared
    tools = _by_name([declared for declared in found if isinstance(declared, Tool)])
    for tool in tools.values():
        if tool.undo is not None and (tool.undo not in tools or tools[tool.undo].service is not tool.service):
            raise DeclarationError(f"{tool.name}: its undo {tool.undo!r} is no tool of {tool.service}")
    return Catalog(
        probes=MappingProxyType(probes),
        tools=MappingProxyType(tools),
        runbooks=MappingProxyType(_by_name([declared for declared in found if isinstance(declared, Runbook)])),
        scenarios=MappingProxyType(_by_name([declared for declared in found if isinstance(declared, Scenario)])),
    )


def _by_name(declared: list[Named]) -> dict[str, Named]:
    named: dict[str, Named] = {}
    for item in sorted(declared, key=lambda item: item.name):
        if item.name in named:
            raise DeclarationError(f"{item.name}: declared twice; names must differ")
        named[item.name] = item
    return named


def _declarations(package: ModuleType) -> Iterator[Declaration]:
    for entry in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(entry.name)
        for value in vars(module).values():
            declared = declaration_of(value)
            if declared is not None and value.__module__ == module.__name__:
                yield declared
