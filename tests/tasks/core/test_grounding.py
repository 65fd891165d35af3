"""What a planner cites, against what it was shown."""

import pytest

from blocks.schema import Inventory
from tasks.core.grounding import doubts
from tasks.core.models import Context, Decision, Incident, Plan, Step


@pytest.fixture
def context(incident: Incident, inventory: Inventory) -> Context:
    return Context(
        incident=incident,
        resource=inventory.resource("cache"),
        observation=incident.observation,
        facts={"redis_info": {"top_prefixes": [{"prefix": "page", "kib": 3}]}},
        error_lines=("12 x ERROR shop: cart write failed: OOM command not allowed",),
    )


def acting(*evidence: str, expected: str = "memory_percent < 80") -> Plan:
    step = Step(tool="redis_memory_purge", target="cache", why="w")
    return Plan(planner="p", decision=Decision.ACT, diagnosis="d", evidence=evidence, expected=expected, steps=(step,))


@pytest.mark.parametrize(
    "item",
    [
        "memory_percent is 97",
        "memory_percent: 97.0.",
        "memory_high",
        "top_prefixes says page",
        "the log: ERROR shop: cart write failed: OOM command not allowed",
    ],
)
def test_what_was_given_is_believed(context: Context, item: str) -> None:
    assert doubts(acting(item), context) == []


@pytest.mark.parametrize("item", ["the disk is full", "disk_percent is 99", "an ERROR was seen", ""])
def test_what_was_made_up_is_doubted(context: Context, item: str) -> None:
    assert doubts(acting("memory_percent is 97", item), context) == [f"evidence that names nothing that was read: {item}"]


def test_what_was_read_while_planning_counts(context: Context) -> None:
    assert doubts(acting("slowlog holds KEYS *"), context, ['redis_slowlog {}: slowlog holds "KEYS *"']) == []


@pytest.mark.parametrize("expected", ["", "all is well", "disk_percent < 5"])
def test_an_expectation_names_a_reading(context: Context, expected: str) -> None:
    (doubt,) = doubts(acting(expected=expected), context)
    assert "names no reading of cache" in doubt
    leaving = acting(expected=expected).model_copy(update={"decision": Decision.ESCALATE, "steps": ()})
    assert doubts(leaving, context) == []
