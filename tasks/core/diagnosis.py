"""Judging a diagnosis without a model: which cause its words name, what it cites, and what it must not conclude."""

import re
from collections.abc import Collection
from enum import StrEnum

from tasks.core.models import Plan

WORD = re.compile(r"\w+")


class Cause(StrEnum):
    """Category of a root cause."""

    MEMORY = "memory"
    CONNECTIONS = "connections"
    LOCK = "lock"
    STATEMENT = "statement"
    CONFIGURATION = "configuration"
    CERTIFICATE = "certificate"
    LOGIN = "login"
    RIGHTS = "rights"
    STOPPED = "stopped"
    FROZEN = "frozen"
    REPLICATION = "replication"
    STORAGE = "storage"
    DAMAGE = "damage"
    CPU = "cpu"
    NETWORK = "network"


WORDS: dict[Cause, re.Pattern[str]] = {
    cause: re.compile(pattern, re.IGNORECASE)
    for cause, pattern in {
        Cause.MEMORY: r"memory|\boom\b|evict",
        Cause.CONNECTIONS: r"connection|\bclients?\b|\bsessions?\b",
        Cause.LOCK: r"\block|transaction|blocke[dr]",
        Cause.STATEMENT: r"statement|\bquer(y|ies)|\bscript|command|\bindex|\bscan",
        Cause.CONFIGURATION: (
            r"config|setting|upstream|address|\bport\b|time ?out|autovacuum|default_transaction|maxclients|\bdir\b|health check"
            r"|file on disk|does not pass the test"
        ),
        Cause.CERTIFICATE: r"certificate",
        Cause.LOGIN: r"password|\blogin|credential|\bauth",
        Cause.RIGHTS: r"\bright|privilege|grant|\bmodes?\b|permission|forbidden",
        Cause.STOPPED: r"not run|\bdown\b|stopped|has ended|\bkilled|exited|crash|restart",
        Cause.FROZEN: r"paused|frozen|\bhang|stands? still|unresponsive|answers no|answers nothing",
        Cause.REPLICATION: r"replica|primary",
        Cause.STORAGE: r"\bdisk|\bstorage|\bwal\b|\bslot|bloat|dead rows|cleans? up|\bsav(e|es|ing)\b|persist",
        Cause.DAMAGE: r"damage|corrupt|broken|cut short|truncated",
        Cause.CPU: r"\bcpu",
        Cause.NETWORK: r"network",
    }.items()
}

OF_SYMPTOM: dict[str, tuple[Cause, tuple[str, ...]]] = {
    "aof_broken": (Cause.DAMAGE, ("broken_aof",)),
    "application_refused": (Cause.LOGIN, ("select_error", "application_error")),
    "auth_refused": (Cause.LOGIN, ("write_error", "application_user", "application_login")),
    "certificate_expired": (Cause.CERTIFICATE, ("certificate_error",)),
    "clients_exhausted": (Cause.CONNECTIONS, ("clients_percent", "connected_clients", "maxclients", "top_clients")),
    "clients_high": (Cause.CONNECTIONS, ("clients_percent", "connected_clients", "maxclients", "top_clients")),
    "config_invalid": (Cause.CONFIGURATION, ("config_error",)),
    "connections_exhausted": (Cause.CONNECTIONS, ("connections_percent", "connections_used", "connections_max", "top_sessions")),
    "connections_high": (Cause.CONNECTIONS, ("connections_percent", "connections_used", "connections_max", "worker_connections")),
    "container_down": (Cause.STOPPED, ("state", "exit_code")),
    "cpu_high": (Cause.CPU, ("cpu_percent", "throttled_percent")),
    "cpu_throttled": (Cause.CPU, ("cpu_percent", "throttled_percent")),
    "crash_looping": (Cause.STOPPED, ("restarts", "exit_code")),
    "dead_rows": (Cause.STORAGE, ("bloated_table",)),
    "disk_high": (Cause.STORAGE, ("disk_percent", "storage_gib")),
    "down": (Cause.STOPPED, ("answers", "runtime_state")),
    "idle_in_transaction": (
        Cause.LOCK,
        ("idle_in_transaction_count", "oldest_idle_in_transaction_seconds", "oldest_idle_in_transaction_application"),
    ),
    "lock_wait": (Cause.LOCK, ("blocked_count", "longest_blocked_seconds", "blocker")),
    "long_query": (Cause.STATEMENT, ("longest_query", "longest_query_seconds", "query_seconds")),
    "memory_high": (Cause.MEMORY, ("memory_percent", "used_memory_mib", "maxmemory_mib", "memory_mib")),
    "network_detached": (Cause.NETWORK, ("networks_missing",)),
    "oom_killed": (Cause.MEMORY, ("oom_kills", "memory_limit_mib")),
    "page_failing": (Cause.CONNECTIONS, ("page_ok", "page_status", "page_error", "connections_percent")),
    "page_forbidden": (Cause.RIGHTS, ("wrong_modes", "pages_failing")),
    "pages_damaged": (Cause.DAMAGE, ("damaged_pages", "checksum_failures", "pages_damaged")),
    "paused": (Cause.FROZEN, ("state",)),
    "persistence_failing": (Cause.STORAGE, ("drift", "last_save_ok", "persistence_error")),
    "port_conflict": (Cause.CONFIGURATION, ("start_error", "error")),
    "privilege_missing": (Cause.RIGHTS, ("privileges_missing",)),
    "read_only": (Cause.CONFIGURATION, ("read_only", "read_only_source")),
    "script_blocking": (Cause.STATEMENT, ("blocked_by_script", "answers", "process_state", "error")),
    "slow": (Cause.CONNECTIONS, ("latency_ms", "connections_percent")),
    "table_scans": (Cause.STATEMENT, ("scanned_table", "table_scans")),
    "unexpected_replica": (Cause.REPLICATION, ("role", "master", "master_link_status")),
    "unhealthy": (Cause.CONFIGURATION, ("health", "health_output")),
    "unresponsive": (Cause.FROZEN, ("answers", "process_state")),
    "upstream_timeout": (Cause.CONFIGURATION, ("page_status", "page_ok", "page_error", "config_known_good")),
    "upstream_unreachable": (Cause.CONFIGURATION, ("undeclared_servers", "page_status", "unused_servers")),
    "wal_retained": (Cause.STORAGE, ("idle_slot", "retained_wal_mib")),
    "write_refused": (Cause.MEMORY, ("write_ok", "write_error", "memory_percent")),
}
"""Symptom -> the cause it stands for where a scenario names none, and the readings of which a diagnosis cites at least one."""


def causes_of(symptoms: Collection[str]) -> frozenset[Cause]:
    """The causes that the symptoms stand for; none for one that is not known here."""
    return frozenset(OF_SYMPTOM[symptom][0] for symptom in symptoms if symptom in OF_SYMPTOM)


def evidence_of(symptoms: Collection[str]) -> frozenset[str]:
    """The readings that show the symptoms."""
    return frozenset(name for symptom in symptoms if symptom in OF_SYMPTOM for name in OF_SYMPTOM[symptom][1])


def named_in(text: str) -> frozenset[Cause]:
    """The causes whose words stand in a text."""
    return frozenset(cause for cause, words in WORDS.items() if words.search(text))


def misjudged(
    plan: Plan, *, causes: Collection[Cause], evidence: Collection[str], quotes: Collection[str] = (), ruled_out: Collection[Cause] = ()
) -> tuple[str, ...]:
    """What is wrong with a plan's diagnosis, one text each; nothing: it names the cause, cites what shows it, concludes nothing false.

    Cited is one of the readings of `evidence`, or one of the sentences of `quotes`. Of no causes or no evidence, that is not asked.
    """
    named = named_in(plan.diagnosis)
    problems = [f"it concludes {cause}, which is not the cause" for cause in sorted(named & set(ruled_out))]
    if causes and not named & set(causes):
        problems.append(f"it names no cause of the category {' or '.join(sorted(causes))}: {plan.diagnosis}")
    items = (plan.diagnosis, *plan.evidence)
    cited = {word for item in items for word in WORD.findall(item)}
    if evidence and not cited & set(evidence) and not any(quote and quote in item for quote in quotes for item in items):
        problems.append(f"it cites none of {', '.join(sorted(evidence))}")
    return tuple(problems)
