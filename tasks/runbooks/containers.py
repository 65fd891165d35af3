"""What is done about a container, least destructive first. Where a rule can't tell, it yields nothing, and a person is asked."""

import math
from collections.abc import Iterator

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context, Step
from tasks.core.values import items
from tasks.runbooks.steps import evidence, measured, step

RAISE_FACTOR = 1.5
SHARE_OF_THRESHOLD = 0.9
"""What is in use is at most this share of the threshold after a raise, as far as the limit allows."""
FIGURES = ("state", "exit_code", "error", "oom_kills", "memory_percent", "memory_limit_mib", "throttled_percent", "cpus_limit")


@runbook(service=Kind.CONTAINER, symptoms={"container_down"}, title="The container is down")
def container_down(context: Context) -> Iterator[Remedy]:
    """Start it once, as it was made; what ends again needs somebody who knows why."""
    values = context.observation.reading.values
    why = f"the container is {values.get('state')} (exit code {values.get('exit_code')}), and no label says that it is meant to be"
    yield _remedy(context, "the container's process has ended", "state running", step(context, "docker_start", why))


@runbook(service=Kind.CONTAINER, symptoms={"paused"}, title="The container is paused")
def container_paused(context: Context) -> Iterator[Remedy]:
    """Let its processes go on where they stopped; it is never killed, for nothing is broken."""
    why = "its processes are frozen and lose nothing when they go on; a restart would end what they were doing"
    yield _remedy(context, "the container was paused", "state running", step(context, "docker_unpause", why))


@runbook(service=Kind.CONTAINER, symptoms={"oom_killed", "memory_high"}, title="The container's memory is used up")
def container_memory(context: Context) -> Iterator[Remedy]:
    """Raise the limit by half within its bound, then to its bound; what is down is started with it.

    Only where limits.memory_mib says how far: how much the machine has left is not measured. What runs is never restarted for its
    memory: it would lose what it was doing, and fill it again.
    """
    limit, most = measured(context, "memory_limit_mib"), context.resource.limits.memory_mib
    if limit is None or most is None:
        return
    for wanted in dict.fromkeys((_raised_memory(context, limit, most), most)):
        if wanted > limit:
            why = f"{_figures(context)}; {wanted} MiB is within limits.memory_mib of {most}, loses nothing and can be taken back"
            steps = (step(context, "docker_update_limits", why, memory_mib=wanted, cpus=None), *_brought_up(context))
            yield _remedy(context, "the memory limit is too small for what runs in it", "oom_kills 0, state running", *steps)


@runbook(service=Kind.CONTAINER, symptoms={"cpu_throttled", "cpu_high"}, title="The container is held back by its CPU limit")
def container_cpu(context: Context) -> Iterator[Remedy]:
    """Raise the limit to its bound: how much would be used is not known before, and what is not needed is not taken."""
    limit, most = measured(context, "cpus_limit"), context.resource.limits.cpus
    if limit is None or most is None or most <= limit:
        return
    why = f"{_figures(context)}; {most:g} cores is limits.cpus, interrupts nothing and can be taken back"
    expected = f"throttled_percent below {context.resource.thresholds.throttled_percent:g}"
    raised = step(context, "docker_update_limits", why, memory_mib=None, cpus=most)
    yield _remedy(context, "the CPU limit is too small for the work", expected, raised)


@runbook(service=Kind.CONTAINER, symptoms={"network_detached"}, title="The container is cut off from a network")
def container_detached(context: Context) -> Iterator[Remedy]:
    """Connect it to the networks that it was made for or has been in, under the names it had there."""
    networks = [str(name) for name in items(context.observation.reading.values, "networks_missing")]
    if not networks:
        return
    why = "the container was in this network and is no more, so nothing in it reaches the container"
    steps = (step(context, "docker_connect_network", why, network=name) for name in networks)
    yield _remedy(context, "the container was taken out of its network", "networks_missing empty", *steps)


@runbook(service=Kind.CONTAINER, symptoms={"unhealthy"}, title="The container's health check fails")
def container_unhealthy(context: Context) -> Iterator[Remedy]:
    """Restart it where none of its ports reacts; where one does, the check is what is wrong, and a person looks at it."""
    if not str(context.observation.reading.values.get("ports_answering") or "").startswith("0 of"):
        return
    why = "its health check fails, and nothing that it listens on reacts to a request within 1 s"
    yield _remedy(context, "the container's process hangs", "health healthy", step(context, "docker_restart", why))


@runbook(
    service=Kind.CONTAINER,
    symptoms={"crash_looping", "port_conflict", "missing"},
    title="The container ends again and again, has lost its port, or is gone: left to a person",
)
def container_left_to_a_person(_context: Context) -> Iterator[Remedy]:
    """Do nothing: no rule knows the last good settings, whose the port is, or what the container was made from."""
    yield from ()


def _brought_up(context: Context) -> tuple[Step, ...]:
    """What is needed for a raise to help at once: the engine waits longer and longer before it starts what keeps falling."""
    match context.observation.reading.values.get("state"):
        case "running":
            return ()
        case "restarting":
            return (step(context, "docker_restart", "it waits to be started again, now with a limit that suffices"),)
        case state:
            return (step(context, "docker_start", f"it is {state} since it was killed for want of memory"),)


def _raised_memory(context: Context, limit: float, most: int) -> int:
    used = measured(context, "memory_mib") or 0
    enough = 100 * used / (context.resource.thresholds.memory_percent * SHARE_OF_THRESHOLD)
    return math.ceil(min(max(limit * RAISE_FACTOR, enough), most))


def _remedy(context: Context, diagnosis: str, expected: str, *steps: Step) -> Remedy:
    cited = evidence(context.observation.reading.values, *FIGURES)
    return Remedy(diagnosis=diagnosis, steps=steps, expected=expected, evidence=cited)


def _figures(context: Context) -> str:
    values = context.observation.reading.values
    memory = f"{values.get('memory_mib')} of {values.get('memory_limit_mib')} MiB in use, {values.get('oom_kills')} killed for want of it"
    return f"{memory}; held back in {values.get('throttled_percent')} % of the time at {values.get('cpus_limit')} cores"
