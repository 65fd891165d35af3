"""What is measured tells whether a baseline is in force."""

import pytest
from pydantic import JsonValue

from tasks.catalog import load_catalog
from tasks.core.baseline import is_in_force
from tests.incidents import context_of

TOOLS = load_catalog().tools


@pytest.mark.parametrize(
    ("incident", "tool", "args", "expected"),
    [
        ("cache: memory_high", "redis_set_maxmemory", {"mebibytes": 64}, True),
        ("cache: memory_high", "redis_set_maxmemory", {"mebibytes": 96}, False),
        ("cache: down", "redis_set_maxmemory", {"mebibytes": 64}, None),
        ("cache: memory_high", "redis_set_eviction_policy", {"policy": "noeviction"}, None),
        ("cache: memory_high", "redis_flush", {}, None),
        ("db: connections_high", "postgres_scale_connections", {"connections": 100}, True),
        ("web: connections_high", "nginx_scale_connections", {"worker_connections": 512}, False),
        ("web: connections_high", "nginx_scale_connections", {"worker_connections": 256, "open_files": 0}, None),
    ],
)
def test_a_call_is_held_against_the_reading(incident: str, tool: str, args: dict[str, JsonValue], expected: bool | None) -> None:
    assert is_in_force(TOOLS[tool], args, context_of(incident).observation) is expected
