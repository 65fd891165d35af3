"""Scripts by which the Gemini server answers when it is started by hand."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from compose.gemini_wire import Answer, Request, Script, calling, refusal, structured

MEMORY_FACTOR = 1.5
CONNECTIONS_FACTOR = 2
# Steps for "at least that old", as a person would choose them.
AGES_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60)


def sensible(request: Request) -> Answer:
    """Reads the incident and plans as a person would for a full Redis, PostgreSQL or Nginx; escalates what it does not know."""
    if request.schema is None:
        return calling(("done", {}))
    tools = _tools(request.schema)
    if "redis_set_maxmemory" in tools:
        return _more_memory(request.text)
    if "postgres_kill_long_queries" in tools:
        return _without_the_largest_group(request.text)
    if "nginx_scale_connections" in tools:
        return _more_connections(request.text)
    return _escalation("nothing that can be done about this resource is known here")


def overloaded(request: Request) -> Answer:
    """Always 503: to see how the runbooks take over, and how the circuit breaker opens."""
    return refusal(503, "UNAVAILABLE", f"The model {request.model} is overloaded. Please try again later.")


def lost(_request: Request) -> Answer:
    """Demands what no plan may hold, whatever it is asked: to see what the checks say."""
    return _plan("all data is suspect", "in doubt, delete everything", ["none"], "delete_everything", {"force": True}, "nothing is left")


SCRIPTS: Mapping[str, Script] = {"sensible": sensible, "overloaded": overloaded, "lost": lost}


def _more_memory(text: str) -> Answer:
    used, limit = _figure(text, "used_memory_mib"), _figure(text, "maxmemory_mib")
    if used is None or not limit or used < 0.9 * limit:
        return _escalation("the memory is not what is short")
    raised = math.ceil(limit * MEMORY_FACTOR)
    return _plan(
        "The memory limit is too small for the data that is kept.",
        f"{used} of {limit} MiB are in use. A higher limit loses nothing and can be taken back, so it comes before evicting.",
        [f"used_memory_mib is {used}", f"maxmemory_mib is {limit}"],
        "redis_set_maxmemory",
        {"mebibytes": raised},
        f"memory_percent < {math.ceil(100 * used / raised) + 5}",
    )


def _without_the_largest_group(text: str) -> Answer:
    groups, most = _list(text, "top_sessions"), _figure(text, "connections_max")
    group = max(groups, key=lambda one: int(one.get("count", 0)), default=None)
    if group is None or most is None or group["count"] < most / 2 or group["state"] != "active":
        return _escalation("no group of sessions with one running statement holds most of the connections")
    age = max((age for age in AGES_SECONDS if age <= float(group["youngest_seconds"])), default=AGES_SECONDS[0])
    return _plan(
        f"{group['application_name']} holds {group['count']} of {most:g} connections with one statement that does not end.",
        "Ending just that statement frees the connections; nobody else is touched and nothing is restarted.",
        [f"top_sessions: {group['count']} times {group['query']}", f"connections_max is {most:g}"],
        "postgres_kill_long_queries",
        {"min_seconds": age, **{name: group[name] for name in ("application_name", "user", "query")}},
        "connections_percent < 80",
    )


def _more_connections(text: str) -> Answer:
    limit, percent = _figure(text, "worker_connections"), _figure(text, "connections_percent")
    if not limit or percent is None or percent < 80:
        return _escalation("the connections are not what is short")
    return _plan(
        "worker_connections is too small for the connections that are held.",
        f"{percent:g} % are in use. The limit is raised without cutting a request and can be taken back.",
        [f"connections_percent is {percent:g}", f"worker_connections is {limit:g}"],
        "nginx_scale_connections",
        {"worker_connections": int(limit * CONNECTIONS_FACTOR)},
        f"connections_percent < {math.ceil(percent / CONNECTIONS_FACTOR) + 5}",
    )


def _plan(diagnosis: str, reasoning: str, evidence: list[str], tool: str, args: Mapping[str, Any], expected: str) -> Answer:
    step = {"tool": tool, "args": dict(args), "why": diagnosis}
    return _answer("act", diagnosis, reasoning=reasoning, evidence=evidence, steps=[step], expected=expected)


def _escalation(why: str) -> Answer:
    return _answer("escalate", f"A person has to decide: {why}.")


def _answer(decision: str, diagnosis: str, **given: Any) -> Answer:
    empty: dict[str, Any] = {"evidence": [], "reasoning": "", "steps": [], "expected": ""}
    return structured({**empty, "diagnosis": diagnosis, "decision": decision, **given})


def _tools(schema: Mapping[str, Any]) -> set[str]:
    """The tools that a step may name, where the schema says so."""
    calls = schema.get("properties", {}).get("steps", {}).get("items", {}).get("anyOf", ())
    return {name for call in calls for name in call["properties"]["tool"].get("enum", ())}


def _figure(text: str, name: str) -> float | None:
    """The first number under that name; the incident's own reading comes first in a prompt."""
    found = re.search(rf'\b{name}"?\s*(?::|=|is)\s*(\d+(?:\.\d+)?)', text)
    return float(found[1]) if found else None


def _list(text: str, name: str) -> list[dict[str, Any]]:
    """The first JSON list of objects under that name."""
    found = re.search(rf'\b{name}"?\s*(?::|=|is)\s*(?=\[)', text)
    if found is None:
        return []
    value, _ = json.JSONDecoder().raw_decode(text, found.end())
    return [one for one in value if isinstance(one, dict)]
