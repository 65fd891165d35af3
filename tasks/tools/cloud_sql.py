"""Tools for Cloud SQL. Each reads its effect back from the API, or from the database.

What they have in common: an operation of the same type that is under way on the instance is taken up and not started again; ToolFailed
where Google refuses or the operation fails; NotApplicable where the instance is in the wrong state, or busy with another operation;
OutcomeUnknown where the end was not seen; Unreachable where nothing was sent.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.cloud_sql import RUNNABLE, CloudSqlClient, SqlInstance
from tasks.clients.execute_sql import ExecuteSql
from tasks.clients.postgres_ending import Statements, end_statements
from tasks.core.declare import Growth, Ladder, NoArgs, ToolArgs, tool
from tasks.core.errors import EvenkeelError, NotApplicable, ProbeBroken, ToolFailed, Unreachable
from tasks.core.models import Change, Observation
from tasks.core.values import part
from tasks.tools.postgres_sessions import KillLongQueries, bystanders, one_holds_half

RESTART_SECONDS = 600.0
UPDATE_SECONDS = 1500.0
MARGIN_SECONDS = 60.0
"""What reading back may take besides."""
API_POLL_SECONDS = 0.5
RUNS = {"cloudsql.instances.list", "cloudsql.instances.get"}


class ScaleTier(ToolArgs):
    """The new size."""

    tier: str = Field(
        min_length=1,
        max_length=60,
        description="New tier, one of the resource's limits.tiers above the present one, such as db-custom-2-7680.",
    )


class GrowStorage(ToolArgs):
    """The new storage."""

    storage_gib: int = Field(ge=10, le=65_536, description="New storage in GiB, at most the resource's limits.storage_gib.")


def _others(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Whom ending statements hits beside the measured troublemaker, or the very statement that was measured to run for too long."""
    longest = part(observation.reading.values, "longest_query")
    named = [args.get(name) for name in ("application_name", "user", "query")]
    is_too_long = any(finding.symptom == "long_query" for finding in observation.findings)
    if is_too_long and None not in named and named == [longest.get(name) for name in ("application_name", "user", "query")]:
        return ""
    return bystanders(args, observation)


@tool(
    service=Kind.CLOUD_SQL,
    risk=Risk.DISRUPTIVE,
    title="Restart the instance",
    timeout_seconds=RESTART_SECONDS + MARGIN_SECONDS,
    symptoms={"down", "unresponsive"},
    permissions={*RUNS, "cloudsql.instances.restart"},
)
async def gcp_sql_restart_instance(client: CloudSqlClient, args: NoArgs) -> Change:
    """Restart the instance: every session is dropped, uncommitted work is rolled back.

    Reads back the state, and by whichever way there is to the database its start (pg_postmaster_start_time).
    """
    instance = _running(client, await client.instance(fresh=True))
    before = await _described(client, instance)
    operation = await client.carry_out(
        "restart",
        "RESTART",
        lambda api: api.restart(project=client.cloud.project, instance=client.resource.address),
        seconds=RESTART_SECONDS,
    )
    after = await _described(client, await client.instance(fresh=True))
    return Change(before=before, after={**after, "operation": operation})


# DISRUPTIVE although the tier before could be set again: it takes a restart, and so does taking it back.
@tool(
    service=Kind.CLOUD_SQL,
    risk=Risk.DISRUPTIVE,
    title="Change the tier",
    timeout_seconds=UPDATE_SECONDS + MARGIN_SECONDS,
    symptoms={"connections_exhausted", "connections_high", "cpu_high", "memory_high"},
    ladder=Ladder(argument="tier", measured="tier", limit="tiers"),
    after=("gcp_sql_kill_long_queries",),
    permissions={*RUNS, "cloudsql.instances.update"},
    cost="the larger tier's price, by the hour, until somebody goes back to the smaller one",
)
async def gcp_sql_scale_tier(client: CloudSqlClient, args: ScaleTier) -> Change:
    """Change the instance to a larger tier, which restarts it; only to one of limits.tiers.

    A tier's memory decides on max_connections, unless a flag sets it. NotApplicable: the tier is not declared, or not a larger one.
    """
    instance = _running(client, await client.instance(fresh=True))
    name, tiers = client.resource.name, client.resource.limits.tiers or ()
    if args.tier not in tiers:
        raise NotApplicable(f"{name}: {args.tier} is not among limits.tiers: {', '.join(tiers) or 'none is declared'}")
    if instance.tier == args.tier:
        return Change(before=_sizes(instance), after=_sizes(instance))
    if instance.tier not in tiers or tiers.index(args.tier) < tiers.index(instance.tier):
        raise NotApplicable(
            f"{name}: {args.tier} does not stand above the present tier {instance.tier} in limits.tiers: {', '.join(tiers)}"
        )
    operation = await _updated(client, instance, {"tier": args.tier})
    after = await client.instance(fresh=True)
    if after.tier != args.tier:
        raise ToolFailed(f"{name}: the tier reads back as {after.tier}, not {args.tier}; another change was under way")
    return Change(before=_sizes(instance), after={**_sizes(after), "operation": operation})


# DISRUPTIVE: the sessions' clients get an error and have to connect again. What they had not committed is rolled back.
@tool(
    service=Kind.CLOUD_SQL,
    risk=Risk.DISRUPTIVE,
    title="End long queries",
    timeout_seconds=60,
    symptoms={"connections_exhausted", "connections_high", "long_query", "slow"},
    aim=_others,
    fits=one_holds_half,
    permissions={*RUNS, "cloudsql.instances.executeSql"},
)
async def gcp_sql_kill_long_queries(client: CloudSqlClient, args: KillLongQueries) -> Change:
    """End the sessions whose statement runs for too long, for example those of one application.

    In the database as its login `monitor`, which needs pg_signal_backend; by executeSql where there is no way to it and the instance
    allows that. Reads back `sessions_matched` (in pg_stat_activity), `sessions_terminated` and `connections_used`. NotApplicable when
    nothing matches.
    """
    instance = _running(client, await client.instance(fresh=True))
    way, how = await _statements(client, instance)
    change = await end_statements(
        way, client.resource.name, args.model_dump(), every_seconds=API_POLL_SECONDS if how == "executeSql" else 0.02
    )
    return change.model_copy(update={"after": {**change.after, "by": how}})


@tool(
    service=Kind.CLOUD_SQL,
    risk=Risk.DESTRUCTIVE,
    title="Grow the storage",
    timeout_seconds=UPDATE_SECONDS + MARGIN_SECONDS,
    symptoms={"disk_high"},
    growth=Growth(argument="storage_gib", measured="storage_gib", limit="storage_gib", share="disk_percent"),
    permissions={*RUNS, "cloudsql.instances.update"},
    cost="the added storage's price, every month, for as long as the instance exists: it can't be made smaller",
    loss="nothing; but the storage can never be made smaller again",
    asks="storage can't be made smaller again and is paid for from then on: a person decides",
)
async def gcp_sql_grow_storage(client: CloudSqlClient, args: GrowStorage) -> Change:
    """Grow the instance's storage without a restart; it can never be made smaller again.

    NotApplicable above limits.storage_gib, and where it would not be more than now.
    """
    instance = _running(client, await client.instance(fresh=True))
    name, most = client.resource.name, client.resource.limits.storage_gib
    if most is not None and args.storage_gib > most:
        raise NotApplicable(f"{name}: {args.storage_gib} GiB is above limits.storage_gib, which is {most}")
    if args.storage_gib == instance.storage_gib:
        return Change(before=_sizes(instance), after=_sizes(instance))
    if args.storage_gib < instance.storage_gib:
        raise NotApplicable(f"{name}: it has {instance.storage_gib} GiB, and storage can't be made smaller")
    operation = await _updated(client, instance, {"dataDiskSizeGb": str(args.storage_gib)})
    after = await client.instance(fresh=True)
    if after.storage_gib < args.storage_gib:
        raise ToolFailed(f"{name}: the storage reads back as {after.storage_gib} GiB, not {args.storage_gib}; another change was under way")
    return Change(before=_sizes(instance), after={**_sizes(after), "operation": operation})


async def _updated(client: CloudSqlClient, instance: SqlInstance, settings: dict[str, Any]) -> str:
    """Change settings; refused by Google where another change came since the instance was read."""
    body = {"settings": {**settings, "settingsVersion": instance.settings_version}}
    return await client.carry_out(
        "update",
        "UPDATE",
        lambda api: api.patch(project=client.cloud.project, instance=client.resource.address, body=body),
        seconds=UPDATE_SECONDS,
    )


def _running(client: CloudSqlClient, instance: SqlInstance) -> SqlInstance:
    if instance.state != RUNNABLE:
        raise NotApplicable(f"{client.resource.name}: its state is {instance.state}; it can be changed only while it is {RUNNABLE}")
    if instance.activation == "NEVER":
        raise NotApplicable(f"{client.resource.name}: it was stopped (activation policy NEVER); a person has to start it")
    return instance


async def _statements(client: CloudSqlClient, instance: SqlInstance) -> tuple[Statements, str]:
    """The way to the database's statements: its own, or else executeSql where that is allowed."""
    try:
        return await client.database(instance), "login"
    except (Unreachable, NotApplicable, ProbeBroken) as error:
        if not instance.runs_statements:
            raise Unreachable(f"{client.resource.name}: no way to its database ({error}), and executeSql is not allowed") from error
        return ExecuteSql(client), "executeSql"


def _sizes(instance: SqlInstance) -> dict[str, JsonValue]:
    return {"state": instance.state, "tier": instance.tier, "storage_gib": instance.storage_gib, "connections_max": instance.connections}


async def _described(client: CloudSqlClient, instance: SqlInstance) -> dict[str, JsonValue]:
    """The state, and since when the database runs, where it says so."""
    shown: dict[str, JsonValue] = {"state": instance.state, "started_at": None}
    try:
        database = await client.database(instance)
        row = (await database.read("SELECT pg_postmaster_start_time()::text AS started_at"))[0]
    except EvenkeelError as error:
        return {**shown, "database_error": str(error)[:200]}
    return {**shown, **row}
