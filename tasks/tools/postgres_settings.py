"""Tools for the settings of a PostgreSQL server that ALTER SYSTEM has written."""

from collections.abc import Mapping
from typing import Literal

from psycopg import sql
from psycopg.sql import SQL, Identifier
from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.polling import poll
from tasks.clients.postgres import PostgresClient, Row
from tasks.clients.postgres_auto_conf import NAME, auto_conf, lines_of, put_lines
from tasks.clients.postgres_log import refused_setting
from tasks.clients.postgres_start import described, start_of, started
from tasks.clients.runtime import require_runtime
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change, Observation

LOADED_SECONDS = 5.0
LOG_LINES = 60
SECRETIVE = ("conninfo", "password", "command")
"""Parts of the names of settings whose values are shown to nobody."""

SettingName = Literal[
    "default_transaction_read_only",
    "autovacuum",
    "max_slot_wal_keep_size",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "work_mem",
]

_SETTING = SQL("""
    SELECT current_setting(name) AS value, source, coalesce(sourcefile, '') AS file, pending_restart
    FROM pg_settings WHERE name = %(setting)s
""")


class ResetSetting(ToolArgs):
    """Which setting."""

    setting: SettingName = Field(description="Name of the setting.")
    value: str | None = Field(None, max_length=100, description="Only to take a reset back: the value that ALTER SYSTEM had set.")


class RevertSetting(ToolArgs):
    """Which setting."""

    setting: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,62}$", description="Name of the setting that the server's log refuses: refused_setting."
    )


def _not_measured(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """What a reset hits that was not measured to be the trouble."""
    values, setting = observation.reading.values, args.get("setting")
    if args.get("value") is not None:
        return f"{setting}, which it would set to a value of its own"
    bloated = values.get("bloated_table")
    is_off = isinstance(bloated, dict) and bloated.get("autovacuum") == "off for the server"
    is_read_only = values.get("read_only") is True and values.get("read_only_source") == "configuration file"
    measured = {"default_transaction_read_only": is_read_only, "autovacuum": is_off}
    return "" if measured.get(str(setting)) else f"{setting}, which is not measured to be the trouble"


def _not_refused(args: Mapping[str, JsonValue], observation: Observation) -> str:
    refused = observation.reading.values.get("refused_setting")
    return (
        "" if refused is not None and args.get("setting") == refused else f"{args.get('setting')}, which the server's log does not refuse"
    )


def _is_refused(observation: Observation) -> bool:
    return observation.reading.values.get("refused_setting") is not None


@tool(
    service=Kind.POSTGRES,
    risk=Risk.REVERSIBLE,
    undo="postgres_reset_setting",
    title="Reset a setting",
    symptoms={"read_only", "dead_rows", "wal_retained"},
    aim=_not_measured,
)
async def postgres_reset_setting(client: PostgresClient, args: ResetSetting) -> Change:
    """Take back what ALTER SYSTEM set for one setting, and load it without a restart.

    Uses ALTER SYSTEM RESET and pg_reload_conf(), reads back pg_settings. `undo` holds the value that was set. Raises NotApplicable where
    ALTER SYSTEM has not set it, ToolFailed when the server refuses or does not load it within 5 s, Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    before = await _setting(client, args.setting)
    is_set = before["file"].endswith(NAME)
    if args.value is None and not is_set:
        where = f"{before['source']} {before['file']}".strip()
        raise NotApplicable(f"{name}: {args.setting} is {before['value']}, from {where}; ALTER SYSTEM has not set it, so nothing was done")
    if args.value is not None and is_set:
        raise NotApplicable(f"{name}: ALTER SYSTEM has set {args.setting} to {before['value']} already; nothing was done")
    if args.value is None:
        statement = SQL("ALTER SYSTEM RESET {}").format(Identifier(args.setting))
    else:
        statement = SQL("ALTER SYSTEM SET {} = {}").format(Identifier(args.setting), sql.Literal(args.value))
    await client.change(statement)

    async def loaded() -> Row | None:
        found = await _setting(client, args.setting)
        return found if found["file"].endswith(NAME) is not is_set else None

    try:
        await client.change("SELECT pg_reload_conf()")
        after = await poll(loaded, seconds=LOADED_SECONDS, every_seconds=0.02)
    except Unreachable as error:
        raise OutcomeUnknown(f"{name}: {args.setting} was written, then the server was lost: {error}") from error
    if after is None:
        now = await _setting(client, args.setting)
        raise ToolFailed(f"{name}: {args.setting} is {now['value']}, from {now['source']}, {LOADED_SECONDS:g} s after the reload")
    undo = {"setting": args.setting, "value": before["value"] if is_set else None}
    return Change(before={args.setting: before["value"]}, after={args.setting: after["value"]}, undo=undo)


# DISRUPTIVE for it starts the server; the line that is taken out stands in what it returns.
@tool(
    service=Kind.POSTGRES,
    risk=Risk.DISRUPTIVE,
    title="Take out a setting with which the server does not start",
    timeout_seconds=40,
    symptoms={"down"},
    aim=_not_refused,
    fits=_is_refused,
)
async def postgres_revert_setting(client: PostgresClient, args: RevertSetting) -> Change:
    """Take a setting that the log refuses out of postgresql.auto.conf, and start the server.

    Reads back pg_postmaster_start_time(). Raises NotApplicable while the server answers, where the log's last start names another setting
    or the file does not set it; ToolFailed when the server does not start without it (the line is in the file again), Unreachable or
    OutcomeUnknown when its runtime does not answer.
    """
    name, setting = client.resource.name, args.setting.lower()
    runtime = require_runtime(client.runtime, name)
    # Asked itself and not its runtime: where that starts it again and again, it runs for a moment each time.
    before = await start_of(client)
    if before is not None:
        raise NotApplicable(f"{name}: the server answers, so no setting keeps it from starting")
    refused = refused_setting(await runtime.log(LOG_LINES))
    if refused is None or refused.lower() != setting:
        raise NotApplicable(f"{name}: the log of the last start refuses {refused or 'no setting'}, not {setting}")
    file = auto_conf(client)
    async with file.locked():
        lines = lines_of(file.read().text, setting)
        if not lines:
            raise NotApplicable(
                f"{name}: {file.path.name} does not set {setting}; it stands in another file, which is for a person to change"
            )
        put_lines(file, setting, [])
        try:
            start = await started(client, runtime, runtime.restart(), before)
        except (NotApplicable, ToolFailed) as error:
            put_lines(file, setting, lines)
            raise ToolFailed(f"{error}; it is not {setting} alone, which is set as before") from error
    return Change(before={**described(None), setting: _value(setting, lines[-1])}, after={**described(start), setting: None})


def _value(setting: str, line: str) -> str:
    if any(part in setting for part in SECRETIVE):
        return "(not shown)"
    return line.replace("=", " ", 1).strip().partition(" ")[2].strip().strip("'")


async def _setting(client: PostgresClient, setting: str) -> Row:
    rows = await client.read(_SETTING, {"setting": setting})
    if not rows:
        raise NotApplicable(f"{client.resource.name}: this server has no setting {setting}")
    return rows[0]
