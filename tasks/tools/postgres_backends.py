"""Tools for one session of a PostgreSQL server: end its statement, or end it where it blocks others."""

from collections.abc import Mapping

from psycopg.sql import SQL
from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.polling import poll
from tasks.clients.postgres import Params, PostgresClient, Row
from tasks.clients.postgres_activity import AGE_SECONDS, FINGERPRINT, STATE, as_values
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change, Observation

GONE_SECONDS = 5.0

# Only what pg_signal_backend may signal, and never the monitor's own sessions.
_SESSION = SQL("""
    SELECT pid, backend_start, query_start, application_name, usename AS "user", {state} AS state, {seconds} AS seconds, {query} AS query
    FROM pg_stat_activity AS activity JOIN pg_roles AS roles ON roles.oid = activity.usesysid
    WHERE backend_type = 'client backend' AND pid = %(pid)s AND application_name = %(application_name)s
      AND pid <> pg_backend_pid() AND usename <> current_user AND NOT roles.rolsuper
""").format(state=STATE, seconds=AGE_SECONDS, query=FINGERPRINT)

# The age is measured in the statement that cancels: a statement that has just begun is not hit.
_CANCEL = SQL("""
    WITH session AS MATERIALIZED ({session})
    SELECT *, pg_cancel_backend(pid) AS signalled FROM session WHERE state = 'active' AND seconds >= %(min_seconds)s
""").format(session=_SESSION)

_STILL = SQL("""
    SELECT count(*) AS count FROM pg_stat_activity
    WHERE pid = %(pid)s AND backend_start = %(backend_start)s AND state = 'active' AND query_start = %(query_start)s
""")

# Whoever waits behind it, directly or not, and only if it waits for nobody itself: then it is the root.
_BLOCKED = SQL("""
    SELECT count(*) FROM blocked WHERE %(pid)s = ANY(blockers)
""")
_WAITING = SQL("""
    waiting AS MATERIALIZED (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted),
    blocked AS MATERIALIZED (SELECT pid, pg_blocking_pids(pid) AS blockers FROM waiting)
""")

_BLOCKS = SQL("""
    WITH {waiting} SELECT ({blocked}) AS sessions_blocked, (SELECT count(*) FROM waiting) AS sessions_waiting
""").format(waiting=_WAITING, blocked=_BLOCKED)

# Read again in the statement that terminates: nobody is ended who blocks nobody any more, or who waits himself.
_TERMINATE = SQL("""
    WITH {waiting}, session AS MATERIALIZED ({session})
    SELECT *, pg_terminate_backend(pid) AS signalled FROM session
    WHERE ({blocked}) > 0 AND pid NOT IN (SELECT pid FROM waiting)
""").format(waiting=_WAITING, session=_SESSION, blocked=_BLOCKED)

_THERE = SQL("SELECT count(*) AS count FROM pg_stat_activity WHERE pid = %(pid)s AND backend_start = %(backend_start)s")

PID = Field(ge=1, description="The session's backend, as the readings name it.")
APPLICATION_NAME = Field(max_length=63, description="The session's application_name, so that another one with that pid is not hit.")


class CancelQuery(ToolArgs):
    """Which statement is ended."""

    pid: int = PID
    application_name: str = APPLICATION_NAME
    min_seconds: float = Field(
        1, ge=0.1, allow_inf_nan=False, description="Only if it has been running for at least this long, in seconds."
    )


class TerminateBlocker(ToolArgs):
    """Which session is ended."""

    pid: int = PID
    application_name: str = APPLICATION_NAME


def _other_query(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Whose statement is ended beside the longest one that was measured."""
    return _unless_measured(args, observation, "longest_query", "the longest statement")


def _other_blocker(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Who is ended beside the measured blocker; and one that is at work is for a person to end."""
    blocker = observation.reading.values.get("blocker")
    if isinstance(blocker, dict) and blocker.get("state") != "idle in transaction":
        return f"backend {args.get('pid')}, which is {blocker.get('state')} and may be at work"
    return _unless_measured(args, observation, "blocker", "the one that blocks")


def _unless_measured(args: Mapping[str, JsonValue], observation: Observation, value: str, what: str) -> str:
    measured = observation.reading.values.get(value)
    named = args.get("pid"), args.get("application_name")
    if isinstance(measured, dict) and (measured.get("pid"), measured.get("application_name")) == named:
        return ""
    return f"backend {named[0]} of {named[1]}, which is not measured to be {what}"


# DISRUPTIVE: the client gets an error, and what the statement had done is rolled back. The session stays.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Cancel a statement",
    symptoms={"long_query", "slow"},
    aim=_other_query,
)
async def postgres_cancel_query(client: PostgresClient, args: CancelQuery) -> Change:
    """Cancel the statement that one session is running; the session stays connected.

    Reads back the session (pg_stat_activity). Raises NotApplicable where no such session runs a statement for so long, ToolFailed when
    the statement goes on 5 s later, Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    rows = await client.change(_CANCEL, {"pid": args.pid, "application_name": args.application_name, "min_seconds": args.min_seconds})
    if not rows or not rows[0]["signalled"]:
        raise NotApplicable(
            f"{name}: backend {args.pid} of {args.application_name!r} runs no statement for {args.min_seconds:g} s; nothing was done"
        )
    session = rows[0]
    await _until_none(client, _STILL, session, f"the statement of backend {args.pid} goes on {GONE_SECONDS:g} s after its cancellation")
    return Change(before={**_shown(session), "statement_running": True}, after={**_shown(session), "statement_running": False})


# DISRUPTIVE: the session's client has to connect again, and what it had not committed is rolled back.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="End the session that blocks others",
    symptoms={"lock_wait", "connections_exhausted", "connections_high"},
    aim=_other_blocker,
)
async def postgres_terminate_blocker(client: PostgresClient, args: TerminateBlocker) -> Change:
    """End the session at the root of a queue for a lock, if it still blocks when looked at again.

    Reads back `sessions_blocked` by it (pg_blocking_pids) and `sessions_waiting` in all. Raises NotApplicable where it blocks nobody or
    waits itself, ToolFailed when it is still there after 5 s, Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    chosen = {"pid": args.pid, "application_name": args.application_name}
    before = (await client.read(_BLOCKS, chosen))[0]
    rows = await client.change(_TERMINATE, chosen)
    if not rows or not rows[0]["signalled"]:
        raise NotApplicable(
            f"{name}: backend {args.pid} of {args.application_name!r} is not the root of a queue for a lock; nothing was done"
        )
    session = rows[0]
    await _until_none(client, _THERE, session, f"backend {args.pid} is still there {GONE_SECONDS:g} s after its end was asked for")
    try:
        after = (await client.read(_BLOCKS, chosen))[0]
    except Unreachable as error:
        raise OutcomeUnknown(f"{name}: backend {args.pid} was ended, then the server was lost: {error}") from error
    return Change(before={**_shown(session), **before}, after={**_shown(session), **after})


async def _until_none(client: PostgresClient, query: SQL, session: Row, otherwise: str) -> None:
    """Wait until the query counts none; ToolFailed says what is so otherwise, OutcomeUnknown that the server was lost."""
    params: Params = {name: session[name] for name in ("pid", "backend_start", "query_start")}

    async def none() -> bool | None:
        return (await client.read(query, params))[0]["count"] == 0 or None

    try:
        if not await poll(none, seconds=GONE_SECONDS, every_seconds=0.02):
            raise ToolFailed(f"{client.resource.name}: {otherwise}")
    except Unreachable as error:
        raise OutcomeUnknown(
            f"{client.resource.name}: backend {session['pid']} was signalled, then the server was lost: {error}"
        ) from error


def _shown(session: Row) -> dict[str, JsonValue]:
    return as_values({name: session[name] for name in ("pid", "application_name", "user", "seconds", "query")})
