"""Ending sessions of a PostgreSQL server, by whichever way its statements get there."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from psycopg.sql import SQL, Composed

from tasks.clients.polling import poll
from tasks.clients.postgres_activity import AGE_SECONDS, BACKUPS, FINGERPRINT, STATE
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change

GONE_SECONDS = 5.0

# Only what pg_signal_backend may end, and never: the monitor's own sessions, superusers', replication, autovacuum and other workers,
# or a backup that nobody named.
_MATCHED = SQL("""
    SELECT pid, backend_start FROM (
        SELECT activity.*, {seconds} AS seconds, {fingerprint} AS fingerprint, {state} AS plain_state
        FROM pg_stat_activity AS activity JOIN pg_roles AS roles ON roles.oid = activity.usesysid
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND usename <> current_user AND NOT roles.rolsuper
    ) AS sessions
    WHERE plain_state = ANY(%(states)s) AND seconds >= %(min_seconds)s
      AND coalesce(application_name = %(application_name)s, application_name <> ALL(%(backups)s))
      AND coalesce(usename = %(user)s, true) AND coalesce(fingerprint = %(query)s, true) AND coalesce(pid = %(pid)s, true)
    ORDER BY seconds DESC LIMIT %(limit)s
""").format(seconds=AGE_SECONDS, fingerprint=FINGERPRINT, state=STATE)

_COUNTS = SQL("""
    SELECT (SELECT count(*) FROM ({matched}) AS matched) AS sessions_matched,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections_used
""").format(matched=_MATCHED)

# The ages are measured in the statement that terminates: nothing that has just begun is hit.
_TERMINATE = SQL("""
    WITH matched AS MATERIALIZED ({matched}) SELECT pid, backend_start, pg_terminate_backend(pid) AS signalled FROM matched
""").format(matched=_MATCHED)

_LEFT = SQL("""
    SELECT count(*) AS count FROM pg_stat_activity
    JOIN unnest(%(pids)s::int[], %(starts)s::timestamptz[]) AS ended(pid, backend_start) USING (pid, backend_start)
""")


class Statements(Protocol):
    """A way to a server's statements; its errors are those of a tool."""

    async def read(self, query: SQL | Composed, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of a statement that changes nothing."""

    async def change(self, query: SQL | Composed, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of a statement that changes something; it is sent once."""


async def end_statements(way: Statements, name: str, args: Mapping[str, Any], *, every_seconds: float = 0.02) -> Change:
    """End the sessions that run a statement for at least args' `min_seconds`, as its `application_name`, `user`, `query` and `limit` say.

    Raises NotApplicable when nothing matches, ToolFailed when sessions remain after 5 s, Unreachable or OutcomeUnknown.
    """
    return await _terminate(way, name, {"pid": None, **args, "states": ["active"]}, every_seconds)


async def end_idle_sessions(way: Statements, name: str, args: Mapping[str, Any]) -> Change:
    """End the sessions that are idle in one of args' `states` for at least `min_idle_seconds`; errors as above."""
    return await _terminate(
        way, name, {"query": None, **args, "states": list(args["states"]), "min_seconds": args["min_idle_seconds"]}, 0.02
    )


class _Backend(NamedTuple):
    """A backend; its start tells it from a later one with the same pid."""

    pid: int
    started: Any


async def _terminate(way: Statements, name: str, chosen: Mapping[str, Any], every_seconds: float) -> Change:
    chosen = {**chosen, "backups": list(BACKUPS)}
    before = (await way.read(_COUNTS, chosen))[0]
    if before["sessions_matched"] == 0:
        raise NotApplicable(f"{name}: no session matches, nothing was ended ({before['connections_used']} connections in use)")
    rows = await way.change(_TERMINATE, chosen)
    ended = [_Backend(row["pid"], row["backend_start"]) for row in rows if row["signalled"]]
    if not ended:
        raise NotApplicable(f"{name}: the {before['sessions_matched']} session(s) that matched ended by themselves")
    try:
        if not await poll(lambda: _gone(way, ended), seconds=GONE_SECONDS, every_seconds=every_seconds):
            raise ToolFailed(f"{name}: some of {len(ended)} terminated sessions are still there after {GONE_SECONDS:g} s")
        after = (await way.read(_COUNTS, chosen))[0]
    except Unreachable as error:
        raise OutcomeUnknown(f"{name}: {len(ended)} session(s) were told to end, then the server was lost: {error}") from error
    return Change(before={**before, "sessions_terminated": 0}, after={**after, "sessions_terminated": len(ended)})


async def _gone(way: Statements, ended: list[_Backend]) -> bool | None:
    params = {"pids": [backend.pid for backend in ended], "starts": [backend.started for backend in ended]}
    return (await way.read(_LEFT, params))[0]["count"] == 0 or None
