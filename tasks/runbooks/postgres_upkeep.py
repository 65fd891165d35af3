"""What is done about a statement, a setting, a right, a table or a slot of PostgreSQL. Where no rule can be trusted nothing is yielded."""

from collections.abc import Iterator

from pydantic import JsonValue

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.core.values import number, part, text
from tasks.runbooks.steps import evidence, step

ALTER_SYSTEM = "configuration file"
"""Where pg_settings says that a setting comes from, if it is a file; the tool tells ALTER SYSTEM's from the others."""

MOST_GRANTS = 4
"""More lost rights than that look like a decision, not like an accident."""


@runbook(service=Kind.POSTGRES, symptoms={"long_query"}, title="A statement runs for too long")
def postgres_long_query(context: Context) -> Iterator[Remedy]:
    """Cancel the one statement that exceeds the threshold; its session stays, and what it had done is rolled back."""
    values, threshold = context.observation.reading.values, context.resource.thresholds.query_seconds
    query = part(values, "longest_query")
    seconds, pid, application = number(query, "seconds"), number(query, "pid"), text(query, "application_name")
    if seconds is None or seconds < threshold or pid is None or pid < 1 or application is None:
        return
    who = application or "an unnamed application"
    why = (
        f"backend {pid:g} of {who} has been running one statement for {seconds:.1f} s, the threshold is {threshold:g} s; it waits for "
        "nobody's lock, is no backup, and only this statement is cancelled"
    )
    yield Remedy(
        diagnosis=f"a statement of {who} does not end",
        steps=(
            step(
                context, "postgres_cancel_query", why, pid=int(pid), application_name=application, min_seconds=max(round(threshold, 1), 0.1)
            ),
        ),
        expected=f"longest_query below {threshold:g} s",
        evidence=evidence(values, "longest_query"),
    )


@runbook(service=Kind.POSTGRES, symptoms={"read_only"}, title="PostgreSQL takes no writes")
def postgres_read_only(context: Context) -> Iterator[Remedy]:
    """Reset default_transaction_read_only where a file sets it for the whole server; a database's or role's own is left to a person."""
    values = context.observation.reading.values
    if values.get("read_only") is not True or values.get("in_recovery") is not False or values.get("read_only_source") != ALTER_SYSTEM:
        return
    why = (
        "the application's transactions are read-only by default, by a setting of the whole server, which is a primary; a reload takes it "
        "back, and nobody is disconnected"
    )
    yield Remedy(
        diagnosis="default_transaction_read_only is on for the whole server",
        steps=(step(context, "postgres_reset_setting", why, setting="default_transaction_read_only"),),
        expected="read_only false",
        evidence=evidence(values, "read_only", "read_only_source", "in_recovery"),
    )


@runbook(service=Kind.POSTGRES, symptoms={"privilege_missing"}, title="The application has lost a right")
def postgres_privilege_missing(context: Context) -> Iterator[Remedy]:
    """Grant exactly the rights that the application lacks on what it owns: an owner has them until somebody takes them away."""
    values = context.observation.reading.values
    lost = values.get("privileges_missing")
    if not isinstance(lost, list) or not 0 < len(lost) <= MOST_GRANTS:
        return
    steps = []
    for item in lost:
        found = part({"item": item}, "item")
        privilege, kind, schema, name = (text(found, field) for field in ("privilege", "kind", "schema", "name"))
        if privilege not in {"SELECT", "USAGE"} or kind not in {"table", "sequence", "schema"} or not schema:
            return
        args: dict[str, JsonValue] = {"privilege": privilege, "kind": kind, "schema_name": schema, "name": name or ""}
        why = f"the application owns {kind} {schema}{f'.{name}' if name else ''} and has no {privilege} on it, so somebody revoked it"
        steps.append(step(context, "postgres_grant", why, **args))
    yield Remedy(
        diagnosis="a right of the application to what it owns was revoked",
        steps=tuple(steps),
        expected="privileges_missing empty",
        evidence=evidence(values, "privileges_missing"),
    )


@runbook(service=Kind.POSTGRES, symptoms={"dead_rows"}, title="Dead rows pile up where autovacuum is off")
def postgres_dead_rows(context: Context) -> Iterator[Remedy]:
    """Vacuum the table while it is used, and turn autovacuum on again where it was turned off."""
    values = context.observation.reading.values
    table = part(values, "bloated_table")
    schema, name, autovacuum = (text(table, field) for field in ("schema", "name", "autovacuum"))
    if not schema or not name:
        return
    off_for_all = autovacuum == "off for the server"
    why = f"{table.get('dead_rows')} rows of {schema}.{name} are dead and autovacuum is {autovacuum}; a plain VACUUM locks nobody out"
    vacuum = step(context, "postgres_vacuum", why, table=name, schema_name=schema, autovacuum=not off_for_all)
    reset = step(context, "postgres_reset_setting", "nothing else would clean up behind the writers", setting="autovacuum")
    yield Remedy(
        diagnosis=f"nothing cleans up behind the writers of {schema}.{name}",
        steps=(reset, vacuum) if off_for_all else (vacuum,),
        expected=f"dead_percent below {context.resource.thresholds.dead_rows_percent:g}, autovacuum on",
        evidence=evidence(values, "bloated_table"),
    )


@runbook(service=Kind.POSTGRES, symptoms={"wal_retained"}, title="A replication slot keeps WAL for nobody")
def postgres_wal_retained(context: Context) -> Iterator[Remedy]:
    """Propose to drop the slot, which a person decides: only who runs the standby knows whether it comes back."""
    values = context.observation.reading.values
    slot = part(values, "idle_slot")
    name = text(slot, "name")
    if not name:
        return
    why = f"nobody reads the slot {name}, which keeps {slot.get('retained_mib')} MiB of WAL and would fill the disk"
    yield Remedy(
        diagnosis=f"the replication slot {name} has no reader",
        steps=(step(context, "postgres_drop_slot", why, slot=name),),
        expected="idle_slot none",
        evidence=evidence(values, "idle_slot"),
    )
