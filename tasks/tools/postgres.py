"""Tools for a PostgreSQL server as a whole: restart and capacity."""

from psycopg.sql import SQL, Literal
from pydantic import Field

from blocks.schema import Kind, Risk
from tasks.clients.postgres import PostgresClient, Row
from tasks.clients.postgres_auto_conf import auto_conf, lines_of, put_lines
from tasks.clients.postgres_start import described, start_of, started
from tasks.clients.runtime import require_runtime
from tasks.core.declare import Growth, NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change

MIN_UPTIME_SECONDS = 3.0
NAME = "max_connections"

_SETTING = SQL("""
    SELECT setting::int AS setting, pending_restart, source, current_setting('data_directory') AS data_directory,
           current_setting('superuser_reserved_connections')::int
               + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved
    FROM pg_settings WHERE name = 'max_connections'
""")


class ScaleConnections(ToolArgs):
    """The new capacity."""

    connections: int = Field(ge=10, le=10_000, description="New max_connections, at most the resource's limits.connections.")


@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Restart the server",
    timeout_seconds=40,
    symptoms={"down", "unresponsive"},
    after=("postgres_revert_setting",),
)
async def postgres_restart(client: PostgresClient, args: NoArgs) -> Change:
    """Restart the server: every session is dropped, uncommitted work is rolled back.

    Reads back pg_postmaster_start_time(). Raises NotApplicable when it has only just started, ToolFailed when it does not come up or
    does not let the monitor in, Unreachable or OutcomeUnknown when its runtime does not answer.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    before = await start_of(client)
    if before is not None and before.uptime_seconds < MIN_UPTIME_SECONDS:
        raise NotApplicable(f"{client.resource.name}: started only {before.uptime_seconds:.1f} s ago; another restart would change nothing")
    after = await started(client, runtime, runtime.restart(), before)
    return Change(before=described(before), after=described(after))


# DISRUPTIVE although the change can be taken back: it takes a restart, and so does taking it back.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Change the number of connections",
    timeout_seconds=60,
    symptoms={"connections_exhausted", "connections_high"},
    growth=Growth(argument="connections", measured="connections_max", limit="connections", share="connections_percent"),
    after=("postgres_kill_long_queries", "postgres_terminate_idle"),
)
async def postgres_scale_connections(client: PostgresClient, args: ScaleConnections) -> Change:
    """Set max_connections within the resource's limits and restart; taken back if it does not come up.

    Uses ALTER SYSTEM, reads back pg_settings. `undo` holds the arguments that restore the old value. Raises NotApplicable (nothing
    done) without a limit or a runtime, beyond the limit, at that value already, or where ALTER SYSTEM would have no effect; ToolFailed
    when the server did not come up (the old value is in force again), Unreachable or OutcomeUnknown.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    _require_within_limits(client, args.connections)
    before = await _setting(client)
    _require_possible(client, args.connections, before)
    # Asked before anything is changed: without the runtime there is no restart.
    await runtime.status()
    start = await start_of(client)
    file = auto_conf(client, before["data_directory"])
    async with file.locked():
        earlier = lines_of(file.read().text, NAME)
        await client.change(SQL("ALTER SYSTEM SET max_connections = {}").format(Literal(args.connections)))
        try:
            await started(client, runtime, runtime.restart(), start)
        except ToolFailed as error:
            put_lines(file, NAME, earlier)
            await started(client, runtime, runtime.restart(), start)
            raise ToolFailed(f"{error}; max_connections is {before['setting']} again and the server runs") from error
        except (OutcomeUnknown, Unreachable) as error:
            put_lines(file, NAME, earlier)
            raise OutcomeUnknown(f"{error}; the setting was taken back, whether the server restarted is not known") from error
    after = await _setting(client)
    if after["setting"] != args.connections:
        raise ToolFailed(f"{client.resource.name}: restarted, but max_connections is {after['setting']}, set by {after['source']}")
    return Change(
        before={"max_connections": before["setting"]},
        after={"max_connections": after["setting"]},
        undo={"connections": before["setting"]},
    )


def _require_within_limits(client: PostgresClient, connections: int) -> None:
    limit = client.resource.limits.connections
    if limit is None:
        raise NotApplicable(f"{client.resource.name}: the inventory sets no limit; add `limits.connections` to allow this")
    if connections > limit:
        raise NotApplicable(f"{client.resource.name}: {connections} is beyond limits.connections, {limit}")


def _require_possible(client: PostgresClient, connections: int, setting: Row) -> None:
    name = client.resource.name
    if setting["setting"] == connections and not setting["pending_restart"]:
        raise NotApplicable(f"{name}: max_connections is {connections} already")
    if setting["source"] == "command line":
        raise NotApplicable(f"{name}: max_connections is set on the command line, which overrides every file; change it there")
    if connections <= setting["reserved"]:
        raise NotApplicable(f"{name}: {setting['reserved']} connections are reserved; max_connections has to be more than that")


async def _setting(client: PostgresClient) -> Row:
    return (await client.read(_SETTING))[0]
