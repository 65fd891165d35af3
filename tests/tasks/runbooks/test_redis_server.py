"""The Redis runbooks: what they advise, what they leave to a person, and that the advice heals a real server."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Limits, Resource, Role, Thresholds
from compose.description import LabDescription
from tasks.clients.redis_server import RedisClient, open_redis
from tasks.core.declare import Remedy, Tool, declaration_of
from tasks.core.models import Attempt, Context, Decision, Finding, Health, Incident, Plan, Reading
from tasks.core.plans import parse_args
from tasks.core.redis_judgement import judge
from tasks.core.verdicts import observe
from tasks.probes.redis_server import measure
from tasks.runbooks.redis_server import redis_down, redis_memory, redis_unresponsive
from tasks.tools.redis_process import redis_restart
from tasks.tools.redis_server import redis_evict_to, redis_flush, redis_set_maxmemory

NOW = datetime(2026, 1, 31, tzinfo=UTC)
RUNTIME = ProcessRuntime(control="/run/lab/control.sock", service="cache")
FULL: dict[str, Any] = {
    "answers": "yes",
    "used_memory_mib": 62.0,
    "maxmemory_mib": 64.0,
    "memory_percent": 96.88,
    "write_ok": False,
    "write_error": "OOM command not allowed when used memory > 'maxmemory'.",
}
TOOLS = {
    declared.name: declared
    for tool in (redis_set_maxmemory, redis_evict_to, redis_flush, redis_restart)
    if isinstance(declared := declaration_of(tool), Tool)
}


def resource(role: Role, memory_mib: int | None = None, **fields: Any) -> Resource:
    given = {"name": "cache", "kind": Kind.REDIS, "address": "127.0.0.1:6379", "limits": Limits(memory_mib=memory_mib)}
    return Resource(**{**given, "role": role, **fields})


def context_of(values: dict[str, Any], of: Resource, attempts: tuple[Attempt, ...] = ()) -> Context:
    reading = Reading(values=values)
    findings = judge(reading, of) or (Finding(symptom="memory_high", health=Health.DEGRADED, summary="given"),)
    observation = observe(of, reading, findings, taken_at=NOW, seconds=0)
    incident = Incident(
        id="cache-1",
        inventory="lab",
        resource=of.name,
        kind=of.kind,
        health=observation.health,
        symptoms=tuple(finding.symptom for finding in findings),
        summary=observation.summary,
        opened_at=NOW,
        observation=observation,
    )
    return Context(incident=incident, resource=of, observation=observation, attempts=attempts)


def calls(remedies: list[Remedy]) -> list[tuple[str, dict[str, Any]]]:
    return [(step.tool, step.args) for remedy in remedies for step in remedy.steps]


def attempt_of(remedy: Remedy) -> Attempt:
    return Attempt(plan=Plan(planner="runbook", decision=Decision.ACT, diagnosis=remedy.diagnosis, steps=remedy.steps))


def test_a_full_cache_is_raised_then_evicted_then_flushed() -> None:
    remedies = list(redis_memory(context_of(FULL, resource(Role.CACHE, 128))))

    assert calls(remedies) == [("redis_set_maxmemory", {"mebibytes": 96}), ("redis_evict_to", {"percent": 70}), ("redis_flush", {})]
    assert all("62.0 of 64.0 MiB" in step.why for remedy in remedies for step in remedy.steps)
    assert "memory_percent is 96.88" in remedies[0].evidence


def test_a_store_is_raised_and_nothing_more() -> None:
    assert calls(list(redis_memory(context_of(FULL, resource(Role.STORE, 80))))) == [("redis_set_maxmemory", {"mebibytes": 80})]


@pytest.mark.parametrize("memory_mib", [None, 64, 65])
def test_without_room_the_limit_is_not_raised(memory_mib: int | None) -> None:
    assert calls(list(redis_memory(context_of(FULL, resource(Role.STORE, memory_mib))))) == []
    assert calls(list(redis_memory(context_of(FULL, resource(Role.CACHE, memory_mib)))))[0][0] == "redis_evict_to"


def test_the_limit_is_raised_once_an_incident() -> None:
    of = resource(Role.CACHE, 1024)
    first, *_ = redis_memory(context_of(FULL, of))
    fuller = {**FULL, "used_memory_mib": 95.0, "maxmemory_mib": 96.0, "memory_percent": 98.96}

    assert calls(list(redis_memory(context_of(fuller, of, (attempt_of(first),)))))[0][0] == "redis_evict_to"

    # Taken back for something else that had come, it is still the one that loses nothing.
    exonerated = attempt_of(first).model_copy(update={"exonerated": True})
    assert calls(list(redis_memory(context_of(fuller, of, (exonerated,)))))[0][0] == "redis_set_maxmemory"


def test_a_low_threshold_evicts_below_it() -> None:
    of = resource(Role.CACHE, thresholds=Thresholds(memory_percent=60))

    assert calls(list(redis_memory(context_of(FULL, of))))[0] == ("redis_evict_to", {"percent": 45})


@pytest.mark.parametrize(
    "write_error", ["MISCONF Errors writing to disk", "READONLY You can't write against a replica", "LOADING Redis is loading"]
)
def test_a_write_refused_for_another_reason_is_left_to_a_person(write_error: str) -> None:
    values = {**FULL, "write_error": write_error}

    assert list(redis_memory(context_of(values, resource(Role.CACHE, 128)))) == []


@pytest.mark.parametrize("role", list(Role))
def test_a_server_that_is_down_is_started_where_a_runtime_is_named(role: Role) -> None:
    values = {"answers": "refused", "error": "Connect call failed"}

    (remedy,) = redis_down(context_of(values, resource(role, runtime=RUNTIME)))

    assert calls([remedy]) == [("redis_restart", {})]
    assert "Connect call failed" in remedy.steps[0].why
    assert list(redis_down(context_of(values, resource(role)))) == []


@pytest.mark.parametrize(
    ("values", "role", "runtime", "advised"),
    [
        ({"answers": "timeout"}, Role.CACHE, RUNTIME, ["redis_restart"]),
        ({"answers": "timeout"}, Role.CACHE, None, []),
        ({"answers": "timeout"}, Role.STORE, RUNTIME, []),
        ({"answers": "yes", "blocked_by_script": True}, Role.CACHE, RUNTIME, []),
        ({"answers": "timeout", "process_state": "stopped"}, Role.CACHE, RUNTIME, ["redis_restart"]),
        # It computes: a script may be in the way, and a restart would lose what a script has written.
        ({"answers": "timeout", "process_state": "running"}, Role.CACHE, RUNTIME, ["redis_script_kill"]),
        ({"answers": "timeout", "process_state": "running"}, Role.STORE, None, ["redis_script_kill"]),
    ],
)
def test_only_a_silent_cache_is_restarted(values: dict[str, Any], role: Role, runtime: ProcessRuntime | None, advised: list[str]) -> None:
    remedies = list(redis_unresponsive(context_of(values, resource(role, runtime=runtime))))

    assert [tool for tool, _ in calls(remedies)] == advised


@given(
    used=st.floats(0, 1e6),
    limit=st.floats(0, 1e6),
    most=st.none() | st.integers(16, 10**6),
    threshold=st.floats(1, 100),
    role=st.sampled_from(Role),
)
def test_whatever_the_figures_a_remedy_fits_its_tools_and_bounds(
    used: float, limit: float, most: int | None, threshold: float, role: Role
) -> None:
    of = resource(role, most, thresholds=Thresholds(memory_percent=threshold))
    values = {**FULL, "used_memory_mib": used, "maxmemory_mib": limit, "memory_percent": 100 * used / limit if limit else None}

    for remedy in redis_memory(context_of(values, of)):
        for step in remedy.steps:
            args = parse_args(TOOLS[step.tool], step).model_dump()
            assert step.target == of.name
            assert step.tool == "redis_set_maxmemory" or role is Role.CACHE
            if step.tool == "redis_set_maxmemory":
                assert limit < args["mebibytes"] <= (most or 0)
                assert 100 * used / args["mebibytes"] < threshold
            if step.tool == "redis_evict_to":
                assert args["percent"] < threshold


@given(st.dictionaries(st.sampled_from(sorted(FULL)), st.none() | st.booleans() | st.text(max_size=3) | st.floats(allow_nan=False)))
def test_missing_figures_make_no_runbook_fail(values: dict[str, Any]) -> None:
    context = context_of(values, resource(Role.CACHE, 128, runtime=RUNTIME))

    for book in (redis_memory, redis_down, redis_unresponsive):
        assert all(remedy.steps for remedy in book(context))


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_each_remedy_heals_a_full_server(number: int, fresh_cache: LabDescription) -> None:
    login = fresh_cache.cache
    of = resource(Role.CACHE, 128, address=f"{login.host}:{login.port}")
    async with (
        open_redis(login.host, login.port, username=login.username, password=login.password) as redis,
        Redis.from_url(login.url("monitor"), protocol=2) as second,
    ):
        client = RedisClient(redis, of)
        await second.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        await second.config_set("maxmemory", 64 * 2**20)
        await fill_up(second)
        before = await measure(client, of)
        remedies = list(redis_memory(context_of(before.values, of)))

        for step in remedies[number].steps:
            await TOOLS[step.tool].function(client, parse_args(TOOLS[step.tool], step))

        assert {finding.symptom for finding in judge(before, of)} == {"memory_high", "write_refused"}
        assert judge(await measure(client, of), of) == ()
        assert await second.set("order", "x" * 20 * 1024)


async def fill_up(redis: Redis) -> None:
    """Pages of 20 KB until the server refuses them."""
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(64 * 52):
            pipeline.set(f"page:{number}", "x" * 20 * 1024)
        assert isinstance((await pipeline.execute(raise_on_error=False))[-1], Exception)
