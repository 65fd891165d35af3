"""What is done about PostgreSQL, least destructive first. Where no rule can be trusted nothing is yielded: a person decides."""

import math
from collections.abc import Iterator

from pydantic import JsonValue

from blocks.schema import Kind
from tasks.clients.postgres_activity import BACKUPS
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.core.values import number
from tasks.runbooks.sessions import AGES_SECONDS, Group, age_below, largest_group, turns_over
from tasks.runbooks.steps import evidence, step

GROWTH = 1.5
IDLE_STATES = ("idle", "idle in transaction")


@runbook(
    service=Kind.POSTGRES,
    symptoms={"connections_exhausted", "connections_high"},
    title="PostgreSQL's connections are used up by one application",
)
def postgres_connections(context: Context) -> Iterator[Remedy]:
    """End the statements or idle sessions that hold at least half of all connections; raise the limit where no group stands out."""
    values = context.observation.reading.values
    most = number(values, "connections_max")
    if most is None:
        return
    group = largest_group(context.observation)
    if group is None or group.count < most / 2:
        yield from _scaled(context, int(most))
    elif group.blocked >= group.count / 2:
        # They wait for someone: ending the victims would free nothing for long.
        yield from _without_blocker(context)
    elif group.application_name not in BACKUPS and not turns_over(group, context):
        yield from _without(group, context)


@runbook(service=Kind.POSTGRES, symptoms={"lock_wait"}, title="PostgreSQL sessions wait for a lock")
def postgres_lock_wait(context: Context) -> Iterator[Remedy]:
    """End the session that blocks the others where it is idle in its transaction; one that works is left to a person."""
    yield from _without_blocker(context)


@runbook(service=Kind.POSTGRES, symptoms={"idle_in_transaction"}, title="A PostgreSQL session is idle in its transaction")
def postgres_idle_in_transaction(context: Context) -> Iterator[Remedy]:
    """End that application's sessions which have been idle in a transaction for longer than the threshold, no others."""
    values = context.observation.reading.values
    application, user = (values.get(f"oldest_idle_in_transaction_{part}") for part in ("application", "user"))
    seconds = number(values, "oldest_idle_in_transaction_seconds")
    threshold = context.resource.thresholds.idle_in_transaction_seconds
    if not isinstance(application, str) or not isinstance(user, str) or application in BACKUPS or seconds is None or seconds < threshold:
        return
    why = (
        f"{application or 'an unnamed application'} ({user}) has been idle in a transaction for {seconds:.1f} s, the threshold is "
        f"{threshold:g} s; it keeps its locks and its connection, and only its own uncommitted work is rolled back"
    )
    yield Remedy(
        diagnosis=f"{application or 'an unnamed application'} forgot to end a transaction",
        steps=(
            step(
                context,
                "postgres_terminate_idle",
                why,
                application_name=application,
                user=user,
                states=["idle in transaction"],
                min_idle_seconds=max(threshold, AGES_SECONDS[0]),
            ),
        ),
        expected=f"oldest_idle_in_transaction_seconds below {threshold:g}",
        evidence=evidence(
            values, "idle_in_transaction_count", "oldest_idle_in_transaction_seconds", "oldest_idle_in_transaction_application"
        ),
    )


@runbook(service=Kind.POSTGRES, symptoms={"down"}, title="PostgreSQL is down")
def postgres_down(context: Context) -> Iterator[Remedy]:
    """Take out the setting with which the server's log says that it does not start; else start it where the inventory names its runtime.

    Not where its process runs: then it listens somewhere else than the inventory says, and only a person knows which of the two is right.
    """
    values = context.observation.reading.values
    if context.resource.runtime is None:
        return
    refused = values.get("refused_setting")
    if isinstance(refused, str):
        # Whatever its state: where it is started again and again, it runs for a moment each time.
        yield from _without_setting(context, refused)
    if values.get("runtime_state") == "running":
        return
    state = values.get("runtime_state") or "in an unknown state"
    why = f"no connection is accepted ({values.get('answers_error')}) and the process is {state}: a start interrupts nobody"
    yield Remedy(
        diagnosis="PostgreSQL is not running",
        steps=(step(context, "postgres_restart", why),),
        expected="answers yes, select_ok true",
        evidence=evidence(values, "answers", "answers_error", "runtime_state"),
    )


@runbook(
    service=Kind.POSTGRES,
    symptoms={"unresponsive", "starting", "application_refused", "slow", "pages_damaged", "table_scans"},
    title="PostgreSQL hangs, recovers, refuses the application, is slow, has damaged pages or lacks an index: left to a person",
)
def postgres_left_to_a_person(_context: Context) -> Iterator[Remedy]:
    """Do nothing: a restart harms a store that hangs or recovers and mends no login and no page, and no rule knows a missing index."""
    yield from ()


def _without_setting(context: Context, setting: str) -> Iterator[Remedy]:
    """Start without one setting of postgresql.auto.conf."""
    values = context.observation.reading.values
    why = f"the server's log refuses {setting}, so no start can succeed with it; every other setting stays, and a start interrupts nobody"
    yield Remedy(
        diagnosis=f"PostgreSQL does not start with its setting {setting}",
        steps=(step(context, "postgres_revert_setting", why, setting=setting),),
        expected="answers yes, select_ok true",
        evidence=evidence(values, "answers", "answers_error", "runtime_state", "refused_setting"),
    )


def _without(group: Group, context: Context) -> Iterator[Remedy]:
    """End the sessions of a dominating group."""
    values = context.observation.reading.values
    held = (
        f"{group.count} of {values.get('connections_max')} connections are held by {group.name}, {group.state}, half of them for "
        f"{group.median_seconds:.1f} s or longer"
    )
    if group.state == "active":
        seconds = age_below(group.youngest_seconds)
        why = (
            f"{held}, all running: {group.query}. Only this statement of this application is ended; their work is rolled back, no other "
            "session is touched, nothing is restarted"
        )
        chosen: dict[str, JsonValue] = {"min_seconds": seconds, "query": group.query}
        tool, diagnosis = "postgres_kill_long_queries", f"{group.name} holds {group.count} connections with one statement that does not end"
    elif group.state in IDLE_STATES:
        # The younger half may be a pool at work.
        seconds = age_below(group.median_seconds / 2)
        why = f"{held}. Only its sessions that have been so for {seconds:g} s are ended; those in use and other applications' are not"
        chosen = {"min_idle_seconds": seconds, "states": [group.state]}
        tool, diagnosis = "postgres_terminate_idle", f"{group.name} holds {group.count} connections and does not use them"
    else:
        return
    chosen |= {"application_name": group.application_name, "user": group.user}
    yield Remedy(
        diagnosis=diagnosis,
        steps=(step(context, tool, why, **chosen),),
        expected=f"connections_percent below {context.resource.thresholds.connections_percent:g}, select_ok true",
        evidence=(
            *evidence(values, "connections_used", "connections_max", "connections_percent", "select_ok", "select_error"),
            f"top_sessions: {held}",
        ),
    )


def _scaled(context: Context, most: int) -> Iterator[Remedy]:
    """Half as many connections again, within the limits, where many are seen to share the present ones."""
    values = context.observation.reading.values
    limit = context.resource.limits.connections
    if values.get("sessions_visible") is False:
        return
    if context.resource.runtime is None or limit is None or not isinstance(values.get("top_sessions"), list):
        return
    raised = min(math.ceil(most * GROWTH), limit)
    used = number(values, "connections_used")
    if raised <= most or used is None or 100 * used / raised >= context.resource.thresholds.connections_percent:
        return
    why = (
        f"{used:g} of {most} connections are in use and no group of like sessions holds half of them, so there is nobody to end; "
        f"{raised} is within limits.connections of {limit}. It takes a restart: every session is dropped once"
    )
    yield Remedy(
        diagnosis="the connections are too few for all who use them",
        steps=(step(context, "postgres_scale_connections", why, connections=raised),),
        expected=f"connections_percent below {context.resource.thresholds.connections_percent:g}, connections_max {raised}",
        evidence=evidence(values, "connections_used", "connections_max", "connections_percent", "select_ok", "select_error"),
    )


def _without_blocker(context: Context) -> Iterator[Remedy]:
    """End the one session that blocks, if it does nothing itself."""
    values = context.observation.reading.values
    blocker = values.get("blocker")
    if not isinstance(blocker, dict) or blocker.get("state") != "idle in transaction":
        return
    pid, application, seconds = blocker.get("pid"), blocker.get("application_name"), number(blocker, "seconds")
    if not isinstance(pid, int) or pid < 1 or not isinstance(application, str) or seconds is None or application in BACKUPS:
        return
    who = f"{application or 'an unnamed application'} ({blocker.get('user')})"
    why = (
        f"backend {pid} of {who} has been idle in its transaction for {seconds:.1f} s and "
        f"holds the lock that {values.get('blocked_count')} session(s) wait for; only its own uncommitted work is rolled back"
    )
    yield Remedy(
        diagnosis=f"{application or 'an unnamed application'} holds a lock and does nothing",
        steps=(step(context, "postgres_terminate_blocker", why, pid=pid, application_name=application),),
        expected=f"longest_blocked_seconds below {context.resource.thresholds.blocked_seconds:g} or none",
        evidence=evidence(values, "blocked_count", "longest_blocked_seconds", "blocker"),
    )
