"""What is done about Cloud SQL, least destructive first. Where no rule can be trusted nothing is yielded: a person decides."""

import math
from collections.abc import Iterator

from pydantic import JsonValue

from blocks.schema import Kind
from tasks.clients.postgres_activity import BACKUPS
from tasks.core.cloud_sql_sizes import default_connections
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.core.values import number, part, text
from tasks.runbooks.sessions import age_below, largest_group, turns_over
from tasks.runbooks.steps import evidence, measured, step

GROWTH = 1.5
PATIENCE_SECONDS = 900.0
"""How long Google's own work on an instance is waited for."""
SHARE_OF_THRESHOLD = 0.9
LOAD = ("cpu_percent", "cpu_percent_age_seconds", "memory_percent", "memory_percent_age_seconds", "tier")
DISK = ("disk_percent", "disk_percent_age_seconds", "storage_gib", "storage_grows_by_itself")
CONNECTIONS = ("connections_used", "connections_max", "connections_percent", "select_ok", "select_error", "tier")


@runbook(
    service=Kind.CLOUD_SQL,
    symptoms={"connections_exhausted", "connections_high"},
    title="Cloud SQL's connections are used up",
)
def gcp_sql_connections(context: Context) -> Iterator[Remedy]:
    """End the statements of the one application that holds half of all connections; a larger tier where none stands out."""
    values = context.observation.reading.values
    most, group = measured(context, "connections_max"), largest_group(context.observation)
    if most is None:
        return
    if group is None or group.count < most / 2:
        if isinstance(values.get("top_sessions"), list):
            yield from _larger_tier(context, "the connections are too few for all who use them", CONNECTIONS)
        return
    is_victim = group.blocked >= group.count / 2
    if group.state != "active" or is_victim or group.application_name in BACKUPS or turns_over(group, context):
        return
    seconds = age_below(group.youngest_seconds)
    held = f"{group.count} of {most:g} connections are held by {group.name}, for {group.median_seconds:.1f} s or longer half of them"
    why = (
        f"{held}, all running: {group.query}. Only this statement of this application is ended; its work is rolled back, no other session "
        "is touched, nothing is restarted"
    )
    chosen: dict[str, JsonValue] = {"min_seconds": seconds, "query": group.query}
    chosen |= {"application_name": group.application_name, "user": group.user}
    yield Remedy(
        diagnosis=f"{group.name} holds {group.count} connections with one statement that does not end",
        steps=(step(context, "gcp_sql_kill_long_queries", why, **chosen),),
        expected=f"connections_percent below {context.resource.thresholds.connections_percent:g}, select_ok true",
        evidence=(*evidence(values, *CONNECTIONS), f"top_sessions: {held}"),
    )
    yield from _larger_tier(context, "the connections are too few, also without the statements that were ended", CONNECTIONS)


@runbook(service=Kind.CLOUD_SQL, symptoms={"long_query"}, title="A statement runs for too long on Cloud SQL")
def gcp_sql_long_query(context: Context) -> Iterator[Remedy]:
    """End that application's sessions which run this statement for as long; a backup is left alone."""
    values, threshold = context.observation.reading.values, context.resource.thresholds.query_seconds
    query = part(values, "longest_query")
    application, user, words, seconds = text(query, "application_name"), text(query, "user"), text(query, "query"), number(query, "seconds")
    if application is None or user is None or words is None or seconds is None or seconds < threshold or application in BACKUPS:
        return
    name = application or "an unnamed application"
    why = f"{name} ({user}) has been running {words} for {seconds:.1f} s, the threshold is {threshold:g} s; its work is rolled back"
    chosen: dict[str, JsonValue] = {"min_seconds": max(threshold, 0.1), "query": words, "application_name": application, "user": user}
    yield Remedy(
        diagnosis=f"a statement of {name} does not end",
        steps=(step(context, "gcp_sql_kill_long_queries", why, **chosen),),
        expected=f"longest_query_seconds below {threshold:g}",
        evidence=evidence(values, "longest_query", "longest_query_seconds"),
    )


@runbook(service=Kind.CLOUD_SQL, symptoms={"cpu_high", "memory_high"}, title="Cloud SQL's tier is too small for its load")
def gcp_sql_load(context: Context) -> Iterator[Remedy]:
    """The next larger tier that the inventory declares."""
    yield from _larger_tier(context, "the tier's CPU or memory is used up", LOAD)


@runbook(service=Kind.CLOUD_SQL, symptoms={"disk_high"}, title="Cloud SQL's storage is nearly full")
def gcp_sql_disk(context: Context) -> Iterator[Remedy]:
    """Propose half as much storage again, within limits.storage_gib; a person decides, as it can't be made smaller."""
    values = context.observation.reading.values
    size, share, most = measured(context, "storage_gib"), measured(context, "disk_percent"), context.resource.limits.storage_gib
    threshold = context.resource.thresholds.disk_percent
    if size is None or share is None or most is None:
        return
    wanted = min(max(math.ceil(size * GROWTH), math.ceil(size * share / (threshold * SHARE_OF_THRESHOLD))), most)
    if wanted <= size or size * share / wanted >= threshold:
        return
    why = (
        f"{share:g} % of {size:g} GiB are used, and a full disk stops every write; {wanted} GiB is within limits.storage_gib of {most}. It "
        "takes no restart and loses nothing; it can't be made smaller again, and is paid for from then on"
    )
    yield Remedy(
        diagnosis="the storage is nearly full",
        steps=(step(context, "gcp_sql_grow_storage", why, storage_gib=wanted),),
        expected=f"disk_percent below {threshold:g}, storage_gib {wanted}",
        evidence=evidence(values, *DISK),
    )


@runbook(service=Kind.CLOUD_SQL, symptoms={"down"}, title="Cloud SQL runs, and its database refuses connections")
def gcp_sql_down(context: Context) -> Iterator[Remedy]:
    """Restart the instance, where no operation is under way on it: nobody is connected whom that would interrupt."""
    values = context.observation.reading.values
    why = (
        f"the API calls it {values.get('state')} and it accepts no connection ({values.get('answers_error')}): a restart interrupts nobody"
    )
    yield Remedy(
        diagnosis="the database is down, although its instance runs",
        steps=(step(context, "gcp_sql_restart_instance", why),),
        expected="answers yes, select_ok true",
        evidence=evidence(values, "state", "answers", "answers_error"),
    )


@runbook(service=Kind.CLOUD_SQL, symptoms={"in_transition"}, title="Google is at work on the instance")
def gcp_sql_in_transition(context: Context) -> Iterator[Remedy]:
    """Wait: nothing may be changed meanwhile, and nothing has to be."""
    values = context.observation.reading.values
    yield Remedy(
        diagnosis=f"an operation is under way ({text(values, 'operation') or text(values, 'state')}); it ends by itself",
        steps=(),
        expected="answers yes",
        evidence=evidence(values, "state", "operation", "answers"),
        patience_seconds=PATIENCE_SECONDS,
    )


@runbook(
    service=Kind.CLOUD_SQL,
    symptoms={"not_running", "unresponsive", "starting", "application_refused", "slow"},
    title="Cloud SQL was stopped, hangs, recovers, refuses the application or is slow: left to a person",
)
def gcp_sql_left_to_a_person(_context: Context) -> Iterator[Remedy]:
    """Do nothing: who stopped an instance had a reason, a restart harms a store that hangs or recovers, and mends no login."""
    yield from ()


def _larger_tier(context: Context, diagnosis: str, shown: tuple[str, ...]) -> Iterator[Remedy]:
    """The next tier of limits.tiers that has room for the connections in use."""
    values, tiers = context.observation.reading.values, context.resource.limits.tiers or ()
    tier, used = text(values, "tier"), measured(context, "connections_used")
    if tier not in tiers:
        return
    threshold = context.resource.thresholds.connections_percent
    for larger in tiers[tiers.index(tier) + 1 :]:
        connections = default_connections(larger)
        if connections is None or used is None or 100 * used / connections < threshold:
            break
    else:
        return
    room = "" if connections is None else f", which by default has {connections} connections"
    why = (
        f"{', '.join(f'{name} {values[name]}' for name in shown if values.get(name) is not None)}; {larger} is the next of limits.tiers"
        f"{room}. It restarts the instance: every session is dropped once, and the larger tier is paid for by the hour"
    )
    yield Remedy(
        diagnosis=diagnosis,
        steps=(step(context, "gcp_sql_scale_tier", why, tier=larger),),
        expected=f"tier {larger}, connections_percent below {threshold:g}",
        evidence=evidence(values, *shown),
    )
