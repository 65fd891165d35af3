"""Tools for the sessions of a PostgreSQL server: who holds its connections, and ending those that should not."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.postgres import PostgresClient
from tasks.clients.postgres_activity import ACTIVITY_WITH_LONGEST, as_values
from tasks.clients.postgres_ending import end_idle_sessions, end_statements
from tasks.core.declare import NoArgs, ToolArgs, tool
from tasks.core.models import Change, Observation

APPLICATION_NAME = Field(
    None, max_length=63, description="Only sessions with this application_name; empty: those without one; null: of any application."
)
USER = Field(None, max_length=63, description="Only sessions of this database user.")
LIMIT = Field(1000, ge=1, le=10_000, description="Most sessions to end, the oldest first.")


class KillLongQueries(ToolArgs):
    """Which statements are ended."""

    min_seconds: float = Field(
        ge=0.1, allow_inf_nan=False, description="Only statements that have been running for at least this long, in seconds."
    )
    application_name: str | None = APPLICATION_NAME
    user: str | None = USER
    query: str | None = Field(None, max_length=120, description="Only this statement, exactly as top_sessions shows it.")
    limit: int = LIMIT


class TerminateIdle(ToolArgs):
    """Which idle sessions are ended."""

    min_idle_seconds: float = Field(
        ge=0.1, allow_inf_nan=False, description="Only sessions that have been idle for at least this long, in seconds."
    )
    states: tuple[Literal["idle", "idle in transaction"], ...] = Field(
        ("idle in transaction",),
        min_length=1,
        description="idle: between transactions; idle in transaction: inside one, holding its locks.",
    )
    application_name: str | None = APPLICATION_NAME
    user: str | None = USER
    pid: int | None = Field(None, ge=1, description="Only this backend, if it is in such a state.")
    limit: int = LIMIT


def bystanders(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Whom ending sessions hits beside those that the reading shows to be the trouble.

    That is one application of one user which holds at least half of all connections, blocks others, or is idle in a transaction for
    longest. Whatever a plan says for it, ending anybody else's sessions is for a person to decide.
    """
    values = observation.reading.values
    application, user = args.get("application_name"), args.get("user")
    if application is None or user is None:
        return "every application or user, where it names none: only one measured to be the trouble is ended without a person"
    return "" if (application, user) in _troublemakers(values) else f"{application} ({user}), which is not measured to be the trouble"


def one_holds_half(observation: Observation) -> bool:
    """Whether one application of one user holds half of the connections, so that ending its sessions helps."""
    return bool(_holders_of_half(observation.reading.values))


def _troublemakers(values: Mapping[str, JsonValue]) -> set[tuple[JsonValue, JsonValue]]:
    blocker = values.get("blocker")
    found = {(values.get("oldest_idle_in_transaction_application"), values.get("oldest_idle_in_transaction_user"))}
    if isinstance(blocker, dict):
        found.add((blocker.get("application_name"), blocker.get("user")))
    return found | _holders_of_half(values)


def _holders_of_half(values: Mapping[str, JsonValue]) -> set[tuple[JsonValue, JsonValue]]:
    groups, most = values.get("top_sessions"), values.get("connections_max")
    found: set[tuple[JsonValue, JsonValue]] = set()
    for group in groups if isinstance(groups, list) else ():
        if not isinstance(group, dict):
            continue
        count = group.get("count")
        if isinstance(count, int) and isinstance(most, int | float) and count >= most / 2:
            found.add((group.get("application_name"), group.get("user")))
    return found


@tool(service=Kind.POSTGRES, risk=Risk.READ_ONLY, title="Look at the sessions")
async def postgres_sessions(client: PostgresClient, args: NoArgs) -> Change:
    """Show who holds the connections: the largest groups of sessions, the longest ones, and who blocks.

    The probe's values (pg_stat_activity, pg_locks, pg_settings) with `longest`: the five sessions, idle ones apart, that have been in
    their state for longest, each with pid, application_name, user, state, seconds and query. Raises Unreachable or ToolFailed.
    """
    row = (await client.read(ACTIVITY_WITH_LONGEST))[0]
    values = as_values(row)
    return Change(before=values, after=values)


# DISRUPTIVE, as below: the sessions' clients get an error and have to connect again. What they had not committed is rolled back.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="End long queries",
    timeout_seconds=15,
    symptoms={"connections_exhausted", "connections_high", "lock_wait", "slow"},
    aim=bystanders,
    fits=one_holds_half,
)
async def postgres_kill_long_queries(client: PostgresClient, args: KillLongQueries) -> Change:
    """End the sessions whose statement runs for too long, for example those of one application.

    Reads back `sessions_matched` (in pg_stat_activity), `sessions_terminated` and `connections_used`. Raises NotApplicable when nothing
    matches, ToolFailed when sessions remain after 5 s, Unreachable or OutcomeUnknown.
    """
    return await end_statements(client, client.resource.name, args.model_dump())


@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="End idle sessions",
    timeout_seconds=15,
    symptoms={"connections_exhausted", "connections_high", "idle_in_transaction", "lock_wait"},
    aim=bystanders,
    fits=one_holds_half,
)
async def postgres_terminate_idle(client: PostgresClient, args: TerminateIdle) -> Change:
    """End sessions that have been idle, or idle in a transaction, for too long.

    Reads back `sessions_matched` (in pg_stat_activity), `sessions_terminated` and `connections_used`. Raises NotApplicable when nothing
    matches, ToolFailed when sessions remain after 5 s, Unreachable or OutcomeUnknown.
    """
    return await end_idle_sessions(client, client.resource.name, args.model_dump())
