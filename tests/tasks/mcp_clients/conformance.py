"""Which scenarios of the public conformance suite apply to the MCP server, why the others don't, and what a run of it found."""

import json
import re
from pathlib import Path

from pydantic import BaseModel

APPLICABLE: dict[str, tuple[str, ...]] = {
    "2025-11-25": (
        "server-initialize",
        "server-session-lifecycle",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "ping",
        "logging-set-level",
        "completion-complete",
        "tools-list",
        "resources-list",
        "prompts-list",
    ),
    "2026-07-28": (
        "server-stateless",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "http-header-validation",
        "caching",
        "completion-complete",
        "tools-list",
        "resources-list",
        "sep-2164-resource-not-found",
        "prompts-list",
        "input-required-result-unsupported-methods",
    ),
}
"""Revision of the protocol -> scenarios that need nothing but the server itself."""
UNTESTABLE = ("sep-2575-server-rejects-undeclared-capability", "sep-2575-missing-capability-http-400")
"""Checks within `server-stateless` that call a tool of the suite's reference server; the tests do the same with a tool of the catalogue."""
LEFT_OUT = {
    "tools-call-*": "calls tools that only the suite's reference server has",
    "elicitation-*": "calls tools that only the suite's reference server has",
    "input-required-result-*": "calls tools and prompts that only the suite's reference server has",
    "json-schema-2020-12": "looks for a tool that only the suite's reference server has",
    "http-custom-header-server-validation": "needs a tool whose arguments are repeated in headers; none is",
    "resources-read-*": "reads resources that only the suite's reference server has",
    "resources-templates-read": "reads a resource that only the suite's reference server has",
    "prompts-get-*": "gets prompts that only the suite's reference server has",
    "resources-subscribe": "subscriptions are not offered: a status is measured when it is read",
    "resources-unsubscribe": "subscriptions are not offered: a status is measured when it is read",
    "server-sse-polling": "streams can't be resumed: what a call did is on record, where it can be read",
    "tasks-*": "the extension for tasks is not offered: a change ends within its deadlines, and reports progress meanwhile",
}
"""Scenarios, or how their names begin -> why they don't apply."""


class Check(BaseModel, frozen=True):
    """One check of a scenario."""

    id: str
    status: str


def not_applicable(scenario: str) -> str:
    """Why a scenario is left out; empty: it is not."""
    found = [why for name, why in LEFT_OUT.items() if scenario == name or (name.endswith("*") and scenario.startswith(name[:-1]))]
    return found[0] if found else ""


def read_checks(directory: Path) -> dict[str, list[Check]]:
    """Scenario -> its checks, from the directory that the suite wrote."""
    found: dict[str, list[Check]] = {}
    for path in directory.glob("*/checks.json"):
        scenario = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$", r"\1", path.parent.name)
        found[scenario] = [Check.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    return found
