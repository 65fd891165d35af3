"""What is gathered of an incident, from a real server that shows secrets wherever it can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import yaml
from prefect.logging.loggers import disable_run_logger
from psycopg.sql import SQL, Identifier, Literal
from pydantic import SecretStr

from blocks.credentials import Login
from blocks.inventory_file import parse_inventory
from compose.description import LabDescription
from compose.inventory import environment, inventory
from tasks.catalog import load_catalog
from tasks.clients.redis_server import open_redis
from tasks.connecting import Live
from tasks.context import context_of
from tasks.core.detection import open_incident
from tasks.core.models import Attempt, Change, Decision, FixRecord, Health, Outcome, OutcomeStatus, Plan, Step, Verdict
from tasks.core.prompts import build_prompt
from tasks.core.redaction import MASK
from tasks.probing import probe_resource
from tasks.records.repository import Records

NOW = datetime.now(UTC)


@pytest.fixture
async def live(fresh_database: LabDescription, tmp_path: Path) -> AsyncIterator[Live]:
    """The database of this module's lab with records of this test's own."""
    async with opened(fresh_database, tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(lab: LabDescription, directory: Path) -> AsyncIterator[Live]:
    registration = parse_inventory(yaml.safe_dump(inventory(lab)), environment(lab))
    logins = {
        (name, str(purpose)): Login(username=login.username, password=SecretStr(login.password))
        for name, server in (("shop-db", lab.database), ("shop-cache", lab.cache))
        for purpose, login in server.logins.items()
    }
    async with await Records.open(f"sqlite:///{directory}/records.db") as records, AsyncExitStack() as stack:
        yield Live(registration.inventory, records, load_catalog(), logins, gemini=None, _stack=stack)


async def test_no_secret_gets_from_a_server_into_a_context(live: Live, fresh_database: LabDescription) -> None:
    password = fresh_database.database.logins["application"].password
    conninfo = fresh_database.database.conninfo("application")
    async with await psycopg.AsyncConnection.connect(conninfo, application_name=f"app {password}") as connection:
        with pytest.raises(psycopg.errors.RaiseException):
            await connection.execute(
                SQL("DO $$ BEGIN RAISE EXCEPTION '%', {}; END $$").format(Literal(f"no entry with password {password}"))
            )
        observation = (await probe_resource(live, live.inventory.resource("shop-db"))).model_copy(update={"health": Health.DEGRADED})
        incident = open_incident(live.inventory.name, observation, NOW)
        await store(live, incident_of=observation.resource, message=f"the password was {password}")
        attempt = Attempt(plan=Plan(planner="runbook", decision=Decision.ESCALATE, diagnosis="none"), comment=f"try {password}")
        context = await context_of(live, incident, (attempt,))
    assert password not in context.model_dump_json()
    assert f"app {MASK}" in str(context.observation.reading.values["top_sessions"])
    assert f"app {MASK}" in str(context.facts["postgres_sessions"])
    assert any(MASK in line for line in context.error_lines), context.error_lines
    assert MASK in context.past_fixes[0]
    assert context.attempts[0].comment == f"try {MASK}"
    prompt = build_prompt(context, max_input_tokens=6000, max_steps=4)
    assert prompt.tokens < 4000
    assert prompt.dropped == ()
    assert password not in prompt.user


async def test_nothing_of_an_ordinary_context_is_masked(live: Live, fresh_database: LabDescription) -> None:
    async with await psycopg.AsyncConnection.connect(fresh_database.database.conninfo("application")) as connection:
        await connection.execute("SELECT current_setting('password_encryption'), 12 AS tokens")
        observation = await probe_resource(live, live.inventory.resource("shop-db"))
        context = await context_of(live, open_incident(live.inventory.name, observation, NOW), ())
    # The log still tells of the other test's secret.
    kept = context.model_copy(update={"error_lines": ()})
    assert MASK not in kept.model_dump_json()


async def test_what_earlier_remediations_changed(live: Live) -> None:
    await store(live, incident_of="shop-db", message="healed")
    observation = await probe_resource(live, live.inventory.resource("shop-db"))
    incident = open_incident(live.inventory.name, observation, NOW)
    # The remediation that asks is on record too, and tells nothing.
    own = FixRecord(id=incident.id, incident=incident, before=observation, opened_at=NOW)
    assert await live.records.open_fix(own, "me", NOW)
    context = await context_of(live, incident, ())
    moment = f"{NOW - timedelta(hours=1):%Y-%m-%d %H:%M:%SZ}"
    assert context.recent_changes == (
        f"{moment} postgres_scale_connections (took an earlier step back): connections_max 150 -> 100",
        f"{moment} postgres_scale_connections: connections_max 100 -> 150",
    )
    assert len(context.past_fixes) == 1
    assert "postgres_scale_connections, postgres_scale_connections, postgres_sessions: Completed, healed" in context.past_fixes[0]


async def test_what_could_not_be_measured_is_measured_again(live: Live, fresh_database: LabDescription) -> None:
    """The monitor's login is refused until the server's log tells that it was tried."""
    database, refused = fresh_database.database, "password authentication failed"
    monitor = database.logins["monitor"]
    role = Identifier(monitor.username)
    observation = (await probe_resource(live, live.inventory.resource("shop-db"))).model_copy(update={"health": Health.DEGRADED})
    incident = open_incident(live.inventory.name, observation, NOW)
    log = fresh_database.log_path("database")
    known = log.stat().st_size
    async with await psycopg.AsyncConnection.connect(database.conninfo("admin"), autocommit=True) as admin:
        with disable_run_logger():  # what can't be read is logged to the run
            try:
                await admin.execute(SQL("ALTER ROLE {} PASSWORD 'another'").format(role))
                await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (monitor.username,))
                gathering = asyncio.create_task(context_of(live, incident, ()))
                async with asyncio.timeout(30):
                    while refused not in log.read_bytes()[known:].decode(errors="replace"):  # noqa: ASYNC110 - another process writes it
                        await asyncio.sleep(0.02)
            finally:
                await admin.execute(SQL("ALTER ROLE {} PASSWORD {}").format(role, Literal(monitor.password)))
            context = await gathering
    assert context.observation.health is Health.HEALTHY


@pytest.mark.slow
async def test_another_fault_than_the_incidents_takes_a_second_witness(fresh_cache: LabDescription, tmp_path: Path) -> None:
    """A server that answers nothing for a second and a half is not down: the first measurement ends without an answer, the next is well."""
    async with opened(fresh_cache, tmp_path) as live:
        cache = live.inventory.resource("shop-cache")
        observation = (await probe_resource(live, cache)).model_copy(update={"health": Health.DEGRADED})
        incident = open_incident(live.inventory.name, observation, NOW)
        login = fresh_cache.cache
        async with open_redis(login.host, login.port, username=login.username, password=login.password) as admin:
            await admin.client_pause(1500)
        with disable_run_logger():  # what does not answer is logged to the run
            context = await context_of(live, incident, ())
    assert context.observation.health is Health.HEALTHY


async def store(live: Live, *, incident_of: str, message: str) -> None:
    """A closed fix of an hour ago that raised the limit and took it back."""
    hour_ago = NOW - timedelta(hours=1)
    observation = await probe_resource(live, live.inventory.resource(incident_of))
    incident = open_incident(live.inventory.name, observation, hour_ago)
    step = Step(tool="postgres_scale_connections", target=incident_of, args={"connections": 150}, why="test")
    raised = Change(before={"connections_max": 100, "role": "store"}, after={"connections_max": 150, "role": "store"})
    read = Change(before={"connections_used": 3}, after={"connections_used": 3})
    outcomes = (
        Outcome(step=step, status=OutcomeStatus.DONE, change=raised, started_at=hour_ago),
        Outcome(
            step=step, status=OutcomeStatus.DONE, change=Change(before=raised.after, after=raised.before), started_at=hour_ago, undoes=True
        ),
        Outcome(step=step.model_copy(update={"tool": "postgres_sessions"}), status=OutcomeStatus.DONE, change=read, started_at=hour_ago),
    )
    plan = Plan(planner="runbook", decision=Decision.ACT, diagnosis="test", steps=(step,))
    record = FixRecord(
        id=incident.id, incident=incident, before=observation, attempts=(Attempt(plan=plan, outcomes=outcomes),), opened_at=hour_ago
    )
    assert await live.records.open_fix(record, "test", hour_ago)
    assert await live.records.close_fix(record, "test", Verdict.COMPLETED, message, hour_ago)
