"""How a container is measured and judged: by what its engine tells of it, and explained by its statistics."""

import asyncio
import re
import time

from pydantic import JsonValue

from blocks.schema import Kind, Resource
from tasks.clients.container_facts import (
    MAINTENANCE_LABEL,
    Inspected,
    cpu_limit,
    created_in,
    epoch_seconds,
    labels,
    memory_limit_mib,
    networks,
    port_addresses,
)
from tasks.clients.container_history import History
from tasks.clients.container_samples import usage
from tasks.clients.container_watch import Watched
from tasks.clients.containers import ContainerClient
from tasks.core.declare import probe
from tasks.core.findings import degraded, failed
from tasks.core.models import Finding, Reading
from tasks.core.values import Values, items, number

STEADY_SECONDS = 5.0
"""A container that has been up for so long is no longer one that falls again and again."""
PORT_SECONDS = 1.0
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
PORT_TAKEN = re.compile(r"port is already allocated|address already in use")
REASON_LENGTH = 200


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding. A label of maintenance excuses everything."""
    values = reading.values
    if values.get("maintenance") is not None:
        return ()
    state = values.get("state")
    if state == "missing":
        return (failed("missing", "the engine has no container of this name"),)
    if state == "paused":
        return (failed("paused", "the container is paused: its processes are frozen, and what was said of its health is void"),)
    if state in {"running", "restarting"} or _is_looping(values, resource):
        found = (
            _out_of_memory(values),
            _looping(values, resource),
            _unhealthy(values),
            _detached(values),
            _memory(values, resource),
            *_cpu(values, resource),
        )
        return tuple(finding for finding in found if finding is not None)
    return (_down(values),)


@probe(
    service=Kind.CONTAINER,
    title="Container",
    judge=judge,
    headline="memory_percent",
    timeout_seconds=5,
    trends={"memory_percent": "memory_high"},
)
async def measure(client: ContainerClient, resource: Resource) -> Reading:
    """Measure a container: what the watch of its engine has in memory, after one question that shows that the engine answers.

    Values:
      state                  running, paused, restarting, exited, created, dead or missing
      maintenance            text of the label evenkeel.maintenance, null without one
      health                 healthy, unhealthy or starting, as its health check says; null without one
      health_output          what the check said last, where it is unhealthy
      ports_answering        "3 of 3": its declared TCP ports that react to a request within 1 s, where it is unhealthy; else null
      exit_code, error       of its last end, while it does not run; `error`: why the engine could not start it
      restart_count          starts by the restart policy since the last one by hand
      restarts_last_hour     how often it came up again after it had ended unasked, as far as the engine remembers
      exit_codes             of those ends, the latest last; 137 is SIGKILL
      oom_kills              kills for want of memory in the last hour, since the limits were last changed
      memory_mib             in use, without the files that the kernel would give back      memory_limit_mib    null without one
      memory_percent         their share; null without a limit
      cpus_used              cores in use on average of 5 s      cpus_limit    null without one
      cpu_percent            their share; null without a limit
      throttled_percent      share of the scheduler's periods of the last 5 s in which it was held back for its limit
      networks, networks_missing    those that it is in; that which it was created for or has been seen in, and is no more
      replicas               running containers of its compose service; null without one
      started_at, uptime_seconds, image

    Waits up to 2.5 s when it first sees a container, for two of its statistics. ProbeBroken: the engine does not answer, or sends
    nothing new; then how old the last word is.
    """
    watched = await client.current()
    inspected = watched.inspected
    if inspected is None:
        return Reading(values={"state": "missing"})
    values = _state(inspected, watched.history.within_an_hour(time.time()))
    values |= usage(watched.samples, memory_limit_mib(inspected), cpu_limit(inspected)) | _networks(watched, inspected)
    values["replicas"] = client.watch.replicas(inspected)
    if values["state"] == "running" and values["health"] == "unhealthy":
        values["ports_answering"] = await _ports_answering(inspected)
    return Reading(values=values)


def _state(inspected: Inspected, history: History) -> dict[str, JsonValue]:
    state = inspected["State"]
    started_at = epoch_seconds(state["StartedAt"])
    is_up = bool(state["Running"]) and not state["Restarting"]
    health = state.get("Health") or {}
    codes: list[JsonValue] = list(history.exit_codes[-5:])
    is_down_for_memory = bool(state["OOMKilled"]) and not is_up
    said = [str(check.get("Output", "")).strip() for check in health.get("Log") or ()][-1:] if health.get("Status") == "unhealthy" else []
    return {
        "state": state["Status"],
        "maintenance": labels(inspected).get(MAINTENANCE_LABEL),
        "health": health.get("Status") if health.get("Status") != "none" else None,
        "health_output": said[0][:REASON_LENGTH] if said else None,
        "exit_code": None if is_up else state["ExitCode"],
        "error": state["Error"][-REASON_LENGTH:] or None,
        "restart_count": inspected["RestartCount"],
        "restarts_last_hour": history.restarts,
        "exit_codes": codes,
        "oom_kills": max(history.oom_kills, int(is_down_for_memory)),
        "started_at": None if started_at is None else state["StartedAt"].partition(".")[0].rstrip("Z") + "Z",
        "uptime_seconds": round(time.time() - started_at, 1) if is_up and started_at is not None else None,
        "image": inspected["Config"]["Image"],
    }


def _networks(watched: Watched, inspected: Inspected) -> dict[str, JsonValue]:
    present, own = set(networks(inspected)), created_in(inspected)
    expected = set(watched.networks) | ({own} if own is not None else set())
    now: list[JsonValue] = [*sorted(present)]
    missing: list[JsonValue] = [*sorted(expected - present)]
    return {"networks": now, "networks_missing": missing}


async def _ports_answering(inspected: Inspected) -> str | None:
    """Whether what the container listens on reacts, whatever its health check says; None where nothing is declared."""
    addresses = port_addresses(inspected)
    reacted = await asyncio.gather(*(_reacts(host, port) for host, port in addresses))
    return f"{sum(reacted)} of {len(reacted)}" if reacted else None


async def _reacts(host: str, port: int) -> bool:
    """Whether a server there does anything about a request: the kernel alone takes connections for a process that hangs."""
    try:
        async with asyncio.timeout(PORT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(REQUEST)
                await reader.read(1)
            finally:
                writer.close()
    except (TimeoutError, ConnectionRefusedError):
        return False
    except OSError:
        # It broke the connection off.
        return True
    return True


def _down(values: Values) -> Finding:
    state, error, code = values.get("state"), str(values.get("error") or ""), values.get("exit_code")
    if PORT_TAKEN.search(error):
        return failed("port_conflict", f"the container is {state}: another one has its port: {error}")
    if _count(values, "oom_kills"):
        return failed("oom_killed", f"the container is {state}: it was killed for want of memory ({values.get('memory_limit_mib')} MiB)")
    reason = f": {error}" if error else ""
    return failed("container_down", f"the container is {state} with exit code {code}{reason}")


def _is_looping(values: Values, resource: Resource) -> bool:
    uptime = number(values, "uptime_seconds")
    if uptime is not None and uptime >= STEADY_SECONDS:
        return False
    counts = [_count(values, "restarts_last_hour"), _count(values, "restart_count") if values.get("state") == "restarting" else 0]
    return max(counts) >= resource.thresholds.restarts_per_hour


def _looping(values: Values, resource: Resource) -> Finding | None:
    if not _is_looping(values, resource):
        return None
    codes = ", ".join(map(str, items(values, "exit_codes"))) or str(values.get("exit_code"))
    times = max(_count(values, "restarts_last_hour"), _count(values, "restart_count"))
    return failed("crash_looping", f"the container ends by itself again and again: {times} restarts within an hour, exit codes {codes}")


def _out_of_memory(values: Values) -> Finding | None:
    kills = _count(values, "oom_kills")
    if not kills:
        return None
    limit = values.get("memory_limit_mib")
    return degraded("oom_killed", f"{kills} of its processes were killed for want of memory in the last hour (limit {limit} MiB)")


def _unhealthy(values: Values) -> Finding | None:
    if values.get("health") != "unhealthy":
        return None
    answering, said = values.get("ports_answering"), values.get("health_output")
    ports = f"; {answering} of its ports react" if answering else ""
    return degraded("unhealthy", f"its health check fails: {said or 'it says nothing'}{ports}")


def _detached(values: Values) -> Finding | None:
    missing = items(values, "networks_missing")
    if not missing:
        return None
    return degraded("network_detached", f"the container is cut off from the network {', '.join(map(str, missing))}")


def _memory(values: Values, resource: Resource) -> Finding | None:
    share, threshold = number(values, "memory_percent"), resource.thresholds.memory_percent
    if share is None or share < threshold:
        return None
    used = f"{values.get('memory_mib')} of {values.get('memory_limit_mib')} MiB"
    return degraded("memory_high", f"{share:g} % of the memory limit is in use, {used} (threshold {threshold:g} %)")


def _cpu(values: Values, resource: Resource) -> tuple[Finding | None, ...]:
    thresholds, limit = resource.thresholds, values.get("cpus_limit")
    throttled, share = number(values, "throttled_percent"), number(values, "cpu_percent")
    found: list[Finding | None] = []
    if throttled is not None and throttled >= thresholds.throttled_percent:
        summary = f"the container is held back in {throttled:g} % of the scheduler's periods for its limit of {limit} cores"
        found.append(degraded("cpu_throttled", f"{summary} (threshold {thresholds.throttled_percent:g} %)"))
    if share is not None and share >= thresholds.cpu_percent:
        summary = f"{share:g} % of the CPU limit is in use, {values.get('cpus_used')} of {limit} cores"
        found.append(degraded("cpu_high", f"{summary} (threshold {thresholds.cpu_percent:g} %)"))
    return tuple(found)


def _count(values: Values, name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0
