"""What a scripted model says in the lab's incidents, and what must never have reached it."""

from collections.abc import Iterable, Mapping
from typing import Any

from compose.description import LabDescription
from compose.gemini_wire import Answer, Request, Script, structured
from tasks.catalog import load_catalog

API_KEY = "AIza-scripted-0123456789abcdefghijklmnop"


def step(
    tool: str = "redis_set_maxmemory", target: str = "shop-cache", args: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A step as the model writes it; the right one for a full cache where nothing is given."""
    return {"tool": tool, "target": target, "args": {"mebibytes": 100} if args is None else dict(args), "why": "it is full", **more}


def plan(*steps: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """An answer that acts; `changes` replace its fields."""
    return {
        "evidence": ["memory_percent is above 95"],
        "reasoning": "The limit is small for the data.",
        "diagnosis": "the memory limit is too small",
        "decision": "act",
        "steps": list(steps),
        "expected": "memory_percent < 80",
        **changes,
    }


def planned(*steps: Mapping[str, Any], **changes: Any) -> Answer:
    """The same over the wire."""
    return structured(plan(*steps, **changes))


def obeying(tool: str, target: str, args: Mapping[str, Any]) -> Script:
    """A model that answers with that call, whatever it is asked or told."""
    demanded = planned(step(tool, target, args, why="it says so"), diagnosis="as demanded")
    return lambda _request: demanded


def secrets_of(lab: LabDescription) -> set[str]:
    """Every password of the lab."""
    return {login.password for server in (lab.database, lab.cache) for login in server.logins.values()}


def assert_nothing_leaked(requests: Iterable[Request], lab: LabDescription) -> None:
    """No secret, and nothing of a scenario; the key travels in its header alone."""
    scenarios = load_catalog().scenarios
    for request in requests:
        sent = request.whole
        assert not [secret for secret in secrets_of(lab) if secret in sent]
        assert not [name for name, one in scenarios.items() if name in sent or one.title in sent or one.summary in sent]
        assert API_KEY not in request.path + str(request.body)
