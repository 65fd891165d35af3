"""The PostgreSQL runbooks: what they say to readings of every kind, and that what they say heals a real server."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Limits, Resource, Rules, Thresholds
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.clients.postgres import PostgresClient
from tasks.core.models import Context, Decision, Health, Incident, Observation, Plan, Reading, Step
from tasks.core.plans import parse_args
from tasks.core.verdicts import observe
from tasks.planners.runbooks import RunbookPlanner
from tasks.probes.postgres import measure
from tasks.probes.postgres_judgement import judge
from tests.tasks.database_under_test import DatabaseUnderTest, database_under_test

CATALOG = load_catalog()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNTIME = ProcessRuntime(control="/nowhere", service="database")


def resource(**fields: Any) -> Resource:
    given = {"name": "db", "kind": Kind.POSTGRES, "address": "127.0.0.1:5432/shop", "logins": {"monitor": "evenkeel"}}
    return Resource(**{**given, "runtime": RUNTIME, "limits": Limits(connections=200), **fields})


def group(count: int, **fields: Any) -> dict[str, Any]:
    ages = {"oldest_seconds": 9.0, "median_seconds": 8.0, "youngest_seconds": 7.0}
    who = {"application_name": "reports", "user": "shop", "state": "active", "query": "SELECT ?", "blocked": 0}
    return {**who, **ages, "count": count, **fields}


def values(*groups: dict[str, Any], used: int = 90, **others: Any) -> dict[str, Any]:
    counts = {"connections_used": used, "connections_max": 100, "connections_percent": float(used), "connections_reserved": 6}
    return {"answers": "yes", "select_ok": True, "select_seconds": 0.01, **counts, "top_sessions": list(groups), **others}


def context(target: Resource, now: Observation, before: Observation | None = None) -> Context:
    incident = Incident(
        id="db-1",
        inventory="lab",
        resource=target.name,
        kind=target.kind,
        health=now.health,
        symptoms=tuple(finding.symptom for finding in now.findings),
        summary=now.summary,
        opened_at=now.taken_at,
        observation=before or now,
    )
    return Context(incident=incident, resource=target, observation=now)


def observation(target: Resource, read: dict[str, Any], seconds: float = 0) -> Observation:
    reading = Reading(values={"measured_at": (NOW + timedelta(seconds=seconds)).isoformat(), **read})
    return observe(target, reading, judge(reading, target), taken_at=NOW + timedelta(seconds=seconds), seconds=0.01)


async def plan(read: dict[str, Any], earlier: dict[str, Any] | None = None, **fields: Any) -> Plan:
    """The plan for a reading, and for one of 0.2 s before."""
    target = resource(**fields)
    before = None if earlier is None else observation(target, earlier)
    return await RunbookPlanner(CATALOG, Rules()).plan(context(target, observation(target, read, 0.2), before))


async def only_step(read: dict[str, Any], earlier: dict[str, Any] | None = None, **fields: Any) -> Step:
    found = await plan(read, earlier, **fields)
    assert found.decision is Decision.ACT, found.diagnosis
    assert found.evidence
    assert found.expected
    (step,) = found.steps
    return step


async def test_a_statement_that_holds_half_of_the_connections_is_ended_for_its_application_alone() -> None:
    step = await only_step(values(group(86), group(3, application_name="shop")))
    assert step.tool == "postgres_kill_long_queries"
    chosen = {name: step.args[name] for name in ("application_name", "user", "query", "min_seconds")}
    assert chosen == {"application_name": "reports", "user": "shop", "query": "SELECT ?", "min_seconds": 5}
    assert "86 of 100" in step.why


async def test_just_opened_sessions_are_ended_when_they_only_grow_older() -> None:
    young = {"youngest_seconds": 0.2, "median_seconds": 0.4, "oldest_seconds": 0.5}
    younger = {"youngest_seconds": 0.0, "median_seconds": 0.2, "oldest_seconds": 0.3}
    step = await only_step(values(group(86, **young)), values(group(86, **younger)))
    assert step.args["min_seconds"] == 0.1


async def test_sessions_that_come_and_go_are_load_and_are_left_alone() -> None:
    fresh = group(86, youngest_seconds=0.0, median_seconds=0.05, oldest_seconds=0.2)
    assert (await plan(values(fresh), values(fresh))).decision is Decision.ESCALATE


@pytest.mark.parametrize("state", ["idle", "idle in transaction"])
async def test_unused_sessions_end_and_the_younger_ones_may_be_a_pool_at_work(state: str) -> None:
    step = await only_step(values(group(60, state=state), group(25, application_name="shop")))
    assert step.tool == "postgres_terminate_idle"
    assert step.args["states"] == [state]
    assert step.args["min_idle_seconds"] == 1  # the greatest step below half of the median of 8 s
    assert (step.args["application_name"], step.args["user"]) == ("reports", "shop")


async def test_the_limit_is_raised_only_where_nobody_stands_out() -> None:
    shared = [group(20, application_name=f"app-{number}") for number in range(4)]
    step = await only_step(values(*shared))
    assert (step.tool, step.args) == ("postgres_scale_connections", {"connections": 150})
    step = await only_step(values(*shared), limits=Limits(connections=120))
    assert step.args == {"connections": 120}


@pytest.mark.parametrize(
    "fields", [{"runtime": None}, {"limits": Limits()}, {"limits": Limits(connections=100)}, {"limits": Limits(connections=105)}]
)
async def test_the_limit_is_not_raised_without_a_way_a_bound_or_a_use(fields: dict[str, Any]) -> None:
    assert (await plan(values(group(20)), **fields)).decision is Decision.ESCALATE


@pytest.mark.parametrize(
    "read",
    [
        values(group(86, application_name="pg_dump")),
        values(group(86, state="fastpath function call")),
        # Victims of a lock whose holder works.
        values(group(86, blocked=80), blocker={"pid": 7, "application_name": "etl", "user": "shop", "state": "active", "seconds": 60.0}),
        values(group(86, blocked=80), blocker=None),
        {**values(), "top_sessions": None},
        {"answers": "yes", "monitor_refused": True, "select_ok": False, "select_reason": "full"},
        values(used=3, longest_blocked_seconds=60.0, blocked_count=1, blocker={"pid": 7, "state": "active", "seconds": 60.0}),
        values(used=3, select_ok=False, select_reason="timeout"),
        values(used=3, select_ok=False, select_reason="login"),
        values(used=3, select_seconds=5.0),
        values(used=3, read_only=True, in_recovery=False, read_only_source="user"),
        values(
            used=3, privileges_missing=[{"privilege": "SELECT", "kind": "table", "schema": "public", "name": f"t{n}"} for n in range(5)]
        ),
        values(used=3, damaged_pages=1),
        values(used=3, scanned_table={"schema": "public", "name": "orders", "rows": 10**6, "scans_per_second": 99.0}),
        {"answers": "timeout"},
        {"answers": "starting"},
        {"answers": "refused", "runtime_state": "running"},
    ],
)
async def test_where_no_rule_can_be_trusted_a_person_is_asked(read: dict[str, Any]) -> None:
    found = await plan(read)
    assert found.decision is Decision.ESCALATE
    assert not found.steps


async def test_the_blocker_is_ended_and_not_those_who_wait_for_it() -> None:
    blocker = {"pid": 7, "application_name": "etl", "user": "shop", "state": "idle in transaction", "seconds": 40.0}
    for read in (
        values(group(86, blocked=80), blocker=blocker, blocked_count=80, longest_blocked_seconds=1.0),
        values(used=5, blocker=blocker, blocked_count=3, longest_blocked_seconds=30.0),
    ):
        step = await only_step(read)
        assert (step.tool, step.args) == ("postgres_terminate_blocker", {"pid": 7, "application_name": "etl"})


async def test_only_what_breaks_the_threshold_is_ended_of_the_sessions_idle_in_a_transaction() -> None:
    who = {"oldest_idle_in_transaction_application": "etl", "oldest_idle_in_transaction_user": "shop", "idle_in_transaction_count": 4}
    step = await only_step(values(used=9, oldest_idle_in_transaction_seconds=90.0, **who))
    assert (step.tool, step.args["application_name"], step.args["min_idle_seconds"]) == ("postgres_terminate_idle", "etl", 60)


@pytest.mark.parametrize("state", ["exited", "stopped", None])
async def test_a_server_that_is_down_is_started(state: str | None) -> None:
    down = {"answers": "refused", "answers_error": "Connection refused", "runtime_state": state}
    assert (await only_step(down)).tool == "postgres_restart"
    assert (await plan(down, runtime=None)).decision is Decision.ESCALATE


NUMBERS = st.one_of(st.none(), st.floats(min_value=0, max_value=1e6), st.integers(0, 200))
TEXTS = st.sampled_from(["reports", "shop", "", "pg_dump", "idle", "idle in transaction", "active"])
GROUPS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.one_of(TEXTS, NUMBERS) for name in ("application_name", "user", "state", "query")},
        **dict.fromkeys(("count", "blocked", "youngest_seconds", "median_seconds", "pid", "seconds"), NUMBERS),
    },
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "privilege": st.sampled_from(["SELECT", "USAGE", "DELETE", ""]),
        "kind": st.sampled_from(["table", "sequence", "schema", "function"]),
        "schema": st.sampled_from(["public", "", None]),
        "name": st.sampled_from(["orders", "standby", None, 7]),
        "autovacuum": st.sampled_from(["off for the table", "off for the server", "on", None]),
        **dict.fromkeys(("dead_percent", "retained_mib"), NUMBERS),
    },
)
READINGS = st.fixed_dictionaries(
    {},
    optional={
        "answers": st.sampled_from(["yes", "refused", "timeout", "starting"]),
        "select_ok": st.one_of(st.none(), st.booleans()),
        "select_reason": st.sampled_from(["full", "login", "timeout"]),
        "connections_used": NUMBERS,
        "connections_max": NUMBERS,
        "connections_percent": NUMBERS,
        "longest_blocked_seconds": NUMBERS,
        "oldest_idle_in_transaction_seconds": NUMBERS,
        "oldest_idle_in_transaction_application": TEXTS,
        "oldest_idle_in_transaction_user": TEXTS,
        "blocker": st.one_of(st.none(), GROUPS),
        "top_sessions": st.one_of(st.none(), st.lists(GROUPS, max_size=4)),
        "measured_at": st.sampled_from(["", "2026-01-01T00:00:00Z", None]),
        "runtime_state": st.one_of(st.none(), st.sampled_from(["running", "exited"])),
        "refused_setting": st.one_of(st.none(), st.sampled_from(["work_mem", "wal_buffers"])),
        "read_only": st.booleans(),
        "in_recovery": st.one_of(st.none(), st.booleans()),
        "read_only_source": st.sampled_from(["configuration file", "user", None]),
        "longest_query": st.one_of(st.none(), GROUPS),
        "privileges_missing": st.one_of(st.none(), st.lists(OBJECTS, max_size=6)),
        "bloated_table": st.one_of(st.none(), OBJECTS),
        "idle_slot": st.one_of(st.none(), OBJECTS),
    },
)


@given(READINGS, st.one_of(st.none(), READINGS))
def test_whatever_was_read_a_remedy_is_executable_and_touches_one_application(read: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    target = resource()
    now = observation(target, read, 0.2)
    situation = context(target, now, None if earlier is None else observation(target, earlier))
    for book in CATALOG.runbooks_for(Kind.POSTGRES, situation.incident.symptoms):
        for remedy in book.function(situation):
            for step in remedy.steps:
                parse_args(CATALOG.tools[step.tool], step)
                assert step.target == "db"
                if step.tool == "postgres_restart":
                    assert read["answers"] == "refused"
                elif step.tool == "postgres_kill_long_queries":
                    assert {"application_name", "user", "query"} <= set(step.args)
                elif step.tool == "postgres_terminate_idle":
                    assert {"application_name", "user"} <= set(step.args)


@pytest.fixture
async def database(fresh_database: LabDescription) -> AsyncIterator[DatabaseUnderTest]:
    async with database_under_test(fresh_database) as found:
        yield found


async def heal(client: PostgresClient) -> tuple[list[str], Observation]:
    """Measure twice, plan, execute, and measure again: the tools that ran, and what is left."""

    async def look() -> Observation:
        taken_at = datetime.now(UTC)
        reading = await measure(client, client.resource)
        return observe(client.resource, reading, judge(reading, client.resource), taken_at=taken_at, seconds=0)

    first, second = await look(), await look()
    assert second.health.is_breach
    made = await RunbookPlanner(CATALOG, Rules()).plan(context(client.resource, second, first))
    for step in made.steps:
        tool = CATALOG.tools[step.tool]
        await tool.function(client, parse_args(tool, step))
    return [step.tool for step in made.steps], await look()


@pytest.mark.parametrize("count", [86, 92])
async def test_an_overload_of_long_queries_is_healed_and_bystanders_live(database: DatabaseUnderTest, count: int) -> None:
    bystanders = {
        (await database.connect("shop")).pid,
        (await database.busy(1, "payroll"))[0].pid,
    }
    hogs = {session.pid for session in await database.busy(count, "reports", "SELECT count(*) FROM pg_class CROSS JOIN pg_sleep(3600)")}
    await database.aged(*hogs)
    tools, after = await heal(database.client(limits=Limits(connections=200)))
    assert tools == ["postgres_kill_long_queries"]
    assert after.health is Health.HEALTHY
    left = await database.pids()
    assert bystanders <= left
    assert not hogs & left


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_leak_is_healed_and_other_applications_keep_their_idle_sessions(database: DatabaseUnderTest, in_transaction: bool) -> None:
    bystanders = {(await database.connect("shop")).pid for _ in range(3)}
    leaked = set()
    for _ in range(84):
        session = await (database.idle_in_transaction("leaky") if in_transaction else database.connect("leaky"))
        leaked.add(session.pid)
    await database.aged(*leaked)
    tools, after = await heal(database.client())
    assert tools == ["postgres_terminate_idle"]
    assert after.health is Health.HEALTHY
    assert bystanders <= await database.pids()


async def test_a_queue_behind_a_forgotten_lock_is_healed_and_nobody_in_it_is_ended(database: DatabaseUnderTest) -> None:
    holder = await database.connect("forgetful")
    await holder.connection.execute("CREATE TABLE IF NOT EXISTS carts (id int)")
    await holder.connection.execute("BEGIN")
    await holder.connection.execute("LOCK TABLE carts")
    waiters = await database.busy(82, "shop", "SELECT count(*) FROM carts")
    await database.aged(holder.pid, *(waiter.pid for waiter in waiters))
    tools, _ = await heal(database.client())
    assert tools == ["postgres_terminate_blocker"]
    for waiter in waiters:
        assert waiter.running is not None
        assert (await (await waiter.running).fetchone()) == (0,)
    assert holder.pid not in await database.pids()


async def test_a_long_idle_transaction_is_healed_and_a_short_one_lives(database: DatabaseUnderTest) -> None:
    long = (await database.idle_in_transaction("etl")).pid
    await database.aged(long, seconds=0.5)
    short = (await database.idle_in_transaction("etl")).pid
    client = database.client(thresholds=Thresholds(idle_in_transaction_seconds=0.5))
    tools, after = await heal(client)
    assert tools == ["postgres_terminate_idle"]
    assert after.health is Health.HEALTHY
    left = await database.pids()
    assert long not in left
    assert short in left


async def test_a_killed_server_is_healed(database: DatabaseUnderTest) -> None:
    client = database.client()
    before = await database.value("SELECT pg_postmaster_start_time()")
    await database.runtime.signal("SIGKILL")
    tools, after = await heal(client)
    assert tools == ["postgres_restart"]
    assert after.health is Health.HEALTHY
    assert await database.value("SELECT pg_postmaster_start_time()") > before
