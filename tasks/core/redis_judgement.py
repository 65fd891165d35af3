"""What is wrong with a Redis server, from its reading alone."""

from blocks.schema import Resource
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, number

ANSWER_SECONDS = 1.0
REFUSALS = {"unknown": "the server knows no such user", "disabled": "the server has it switched off", "rejected": "another password is set"}


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    if values.get("answers") == "refused":
        return (_down(values),)
    if values.get("answers") == "timeout":
        return (failed("unresponsive", f"Redis gave no answer within {ANSWER_SECONDS:g} s{_doing(values)}"),)
    if values.get("blocked_by_script") is True:
        return (failed("script_blocking", "a script blocks Redis; every command is refused as BUSY"),)
    found = (
        _role(values, resource),
        _write(values, resource),
        _application(values),
        _memory(values, resource),
        _clients(values, resource),
        _persistence(values),
        _latency(values, resource),
    )
    return tuple(finding for finding in found if finding is not None)


def _down(values: Values) -> Finding:
    broken = values.get("broken_aof")
    if broken:
        return failed("aof_broken", f"Redis does not start: its append-only file {broken} can't be read to its end")
    return failed("down", f"Redis accepts no connection: {values.get('error')}")


def _doing(values: Values) -> str:
    state = values.get("process_state")
    return f"; its process is {state}" if state else ""


def _is_accidental_replica(values: Values, resource: Resource) -> bool:
    return resource.primary and values.get("role") == "replica"


def _role(values: Values, resource: Resource) -> Finding | None:
    if not _is_accidental_replica(values, resource):
        return None
    link = f"{values.get('master')}, its link is {values.get('master_link_status')}"
    return failed("unexpected_replica", f"Redis is a replica of {link}, and the inventory declares it primary")


def _write(values: Values, resource: Resource) -> Finding | None:
    if values.get("write_ok") is not False:
        return None
    if _is_accidental_replica(values, resource) and str(values.get("write_error")).startswith("READONLY"):
        return None  # said already
    return failed("write_refused", f"a write of 20 KB is refused: {values.get('write_error')}")


def _application(values: Values) -> Finding | None:
    why = REFUSALS.get(str(values.get("application_login")))
    return None if why is None else failed("auth_refused", f"the application's login {values.get('application_user')} is refused: {why}")


def _memory(values: Values, resource: Resource) -> Finding | None:
    share, threshold = number(values, "memory_percent"), resource.thresholds.memory_percent
    if share is None or share < threshold:
        return None
    used, limit = values.get("used_memory_mib"), values.get("maxmemory_mib")
    return degraded("memory_high", f"memory at {share:.1f} % of maxmemory ({used} of {limit} MiB, threshold {threshold:g} %)")


def _clients(values: Values, resource: Resource) -> Finding | None:
    if values.get("clients_full") is True:
        return failed("clients_exhausted", "Redis turns new clients away: maxclients is reached")
    share, threshold = number(values, "clients_percent"), resource.thresholds.clients_percent
    if share is None or share < threshold:
        return None
    figures = f"({values.get('connected_clients')} of {values.get('maxclients')}, threshold {threshold:g} %)"
    if share >= 100:
        return failed("clients_exhausted", f"clients at {share:.1f} % of maxclients {figures}; new ones are turned away")
    return degraded("clients_high", f"clients at {share:.1f} % of maxclients {figures}")


def _persistence(values: Values) -> Finding | None:
    failing = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if values.get(name) not in (None, "ok")]
    if not failing:
        return None
    return degraded("persistence_failing", "data is not reaching the disk: " + ", ".join(f"{name} is {values[name]}" for name in failing))


def _latency(values: Values, resource: Resource) -> Finding | None:
    latency, threshold = number(values, "latency_seconds"), resource.thresholds.latency_seconds
    if latency is None or latency < threshold:
        return None
    return degraded("slow", f"Redis took {latency:.3f} s to answer (threshold {threshold:g} s)")
