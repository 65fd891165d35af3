"""What is done about Memorystore, least destructive first. Where a rule can't tell, it yields nothing, and a person is asked."""

import math
from collections.abc import Iterator

from blocks.schema import Kind, Role
from tasks.clients.memorystore import BASIC, STANDARD_HA
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.core.values import text
from tasks.runbooks.steps import evidence, measured, step, was_tried

RAISE_FACTOR = 1.5
SHARE_OF_THRESHOLD = 0.9
PATIENCE_SECONDS = 900.0
"""How long Google's own work on an instance is waited for."""
MEMORY = ("memory_percent", "used_memory_mib", "maxmemory_mib", "memory_gib", "tier", "write_ok", "write_error")


@runbook(service=Kind.MEMORYSTORE, symptoms={"memory_high", "write_refused"}, title="Memorystore's memory is used up")
def gcp_redis_memory(context: Context) -> Iterator[Remedy]:
    """Add memory within limits.memory_gib; on a cache delete every key where that is not enough.

    STANDARD_HA keeps what it holds when its size is changed. BASIC loses it: of a cache that may be, of a store a person decides. Speaks
    only where memory is the reason: a write refused for anything else is none of its business.
    """
    values = context.observation.reading.values
    error = values.get("write_error")
    if error is not None and not str(error).startswith("OOM"):
        return
    larger = _larger(context)
    if larger is not None:
        keeps = values.get("tier") == STANDARD_HA
        yield Remedy(
            diagnosis="the instance's memory is too small for its data",
            steps=(step(context, "gcp_redis_scale_memory", _why_larger(context, larger, keeps=keeps), memory_gib=larger),),
            expected=f"memory_gib {larger}, memory_percent below {context.resource.thresholds.memory_percent:g}, write_ok true",
            evidence=evidence(values, *MEMORY),
        )
    if context.resource.role is not Role.CACHE or values.get("answers") != "yes":
        return
    yield Remedy(
        diagnosis="the cache's memory is full",
        steps=(step(context, "gcp_redis_flush", f"{_figures(context)}; it is a cache, whose contents can be computed again"),),
        expected="memory_percent near 0, write_ok true",
        evidence=evidence(values, *MEMORY),
    )


@runbook(service=Kind.MEMORYSTORE, symptoms={"down", "unresponsive"}, title="Memorystore's primary does not serve")
def gcp_redis_silent(context: Context) -> Iterator[Remedy]:
    """Let the replica of a STANDARD_HA instance take over. A BASIC instance has none, and nothing that restarts it."""
    values = context.observation.reading.values
    if values.get("tier") != STANDARD_HA:
        return
    why = (
        f"the API calls it READY and it serves nobody ({values.get('error')}); its replica has the data, up to what it had not received "
        "yet, and Google refuses where that is more than a little"
    )
    yield Remedy(
        diagnosis="the primary is down, although the instance is READY",
        steps=(step(context, "gcp_redis_failover", why),),
        expected="answers yes, write_ok true",
        evidence=evidence(values, "state", "tier", "answers", "error"),
    )


@runbook(service=Kind.MEMORYSTORE, symptoms={"in_transition"}, title="Google is at work on the instance")
def gcp_redis_in_transition(context: Context) -> Iterator[Remedy]:
    """Wait: a failover, a change of the size or maintenance ends by itself, and the API refuses everything meanwhile."""
    values = context.observation.reading.values
    yield Remedy(
        diagnosis=f"an operation is under way ({text(values, 'state')}); it ends by itself",
        steps=(),
        expected="state READY, answers yes",
        evidence=evidence(values, "state", "tier"),
        patience_seconds=PATIENCE_SECONDS,
    )


@runbook(
    service=Kind.MEMORYSTORE,
    symptoms={"not_running", "clients_high", "clients_exhausted", "slow"},
    title="Memorystore does not run, has too many clients or is slow: left to a person",
)
def gcp_redis_left_to_a_person(_context: Context) -> Iterator[Remedy]:
    """Do nothing: no rule knows whose clients to end, or why Google took an instance out of service."""
    yield from ()


def _larger(context: Context) -> int | None:
    """The next size in GiB; None where it may not be raised, was raised already, or would not help."""
    now, share, most = measured(context, "memory_gib"), measured(context, "memory_percent"), context.resource.limits.memory_gib
    if now is None or share is None or most is None or was_tried(context, "gcp_redis_scale_memory"):
        return None
    threshold = context.resource.thresholds.memory_percent
    larger = min(max(math.ceil(now * RAISE_FACTOR), math.ceil(now * share / (threshold * SHARE_OF_THRESHOLD))), most)
    return larger if larger > now and share * now / larger < threshold else None


def _figures(context: Context) -> str:
    values = context.observation.reading.values
    return f"{values.get('memory_percent')} % of {values.get('memory_gib')} GiB are in use"


def _why_larger(context: Context, larger: int, *, keeps: bool) -> str:
    values = context.observation.reading.values
    paid = f"{larger} GiB is within limits.memory_gib of {context.resource.limits.memory_gib}, and the larger size is paid for by the hour"
    if keeps:
        return f"{_figures(context)}; {paid}. STANDARD_HA fails over and keeps its data, connections drop once"
    lost = f"all {values.get('used_memory_mib')} MiB that it holds" if values.get("used_memory_mib") is not None else "all that it holds"
    tier = BASIC if values.get("tier") == BASIC else "a tier that is not known"
    return f"{_figures(context)}; {paid}. Data loss: {tier} has no replica, so changing its size loses {lost}, and connections drop"
