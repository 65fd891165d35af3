"""What is done about Redis, least destructive first. Where a rule can't tell, it yields nothing, and a person is asked."""

import math
from collections.abc import Iterator

from blocks.schema import Kind, Role
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.runbooks.steps import measured, step, was_tried

EVICT_TO_PERCENT = 70
RAISE_FACTOR = 1.5
SHARE_OF_THRESHOLD = 0.9
"""What is in use is at most this share of the threshold after a raise, as far as the limit allows."""


@runbook(service=Kind.REDIS, symptoms={"memory_high", "write_refused"}, title="Redis memory is used up")
def redis_memory(context: Context) -> Iterator[Remedy]:
    """Raise the limit by half within its bound; on a cache evict to 70 %, then flush.

    A store is never emptied. Speaks only where memory is the reason: a write refused for anything else (MISCONF, READONLY, LOADING) is
    none of its business. The limit is raised once an incident, and only where limits.memory_mib says how far: how much the machine has
    left is not measured.
    """
    if _refused_for_another_reason(context) or measured(context, "used_memory_mib") is None:
        return
    raised = _raised_limit(context)
    if raised is not None:
        yield Remedy(
            diagnosis="the memory limit is too small for the data",
            steps=(step(context, "redis_set_maxmemory", _why_raise(context, raised), mebibytes=raised),),
            expected=f"memory_percent below {context.resource.thresholds.memory_percent:g}, write_ok true",
            evidence=_evidence(context),
        )
    if context.resource.role is not Role.CACHE:
        return
    percent = _evict_percent(context)
    if percent is None:
        return
    yield Remedy(
        diagnosis="the cache holds more than its memory limit allows for",
        steps=(step(context, "redis_evict_to", _why_evict(context, percent), percent=percent),),
        expected=f"memory_percent at most {percent}, write_ok true",
        evidence=_evidence(context),
    )
    yield Remedy(
        diagnosis="the cache is full, and evicting is not enough",
        steps=(step(context, "redis_flush", _why_flush(context)),),
        expected="memory_percent near 0, write_ok true",
        evidence=_evidence(context),
    )


@runbook(service=Kind.REDIS, symptoms={"down"}, title="Redis is down")
def redis_down(context: Context) -> Iterator[Remedy]:
    """Start the server again where the inventory names its runtime; it comes back with what it saved."""
    if context.resource.runtime is None:
        return
    error = context.observation.reading.values.get("error")
    why = f"no connection is accepted ({error}); a server that is down is started, with the data it saved"
    yield Remedy(
        diagnosis="the server is not running",
        steps=(step(context, "redis_restart", why),),
        expected="answers yes, write_ok true",
        evidence=("answers is refused",),
    )


@runbook(service=Kind.REDIS, symptoms={"unresponsive"}, title="Redis does not answer")
def redis_unresponsive(context: Context) -> Iterator[Remedy]:
    """Restart a cache that is silent.

    A store might lose what it holds: a person decides. A process that computes is busy with somebody's script or command: the script is
    ended, and never the server.
    """
    values = context.observation.reading.values
    if values.get("answers") != "timeout":
        return
    if values.get("process_state") == "running":
        yield Remedy(
            diagnosis="the server computes and answers nobody: a script or a long command keeps it busy",
            steps=(step(context, "redis_script_kill", "its process computes and no connection gets an answer; a script may be ended"),),
            expected="answers yes, write_ok true",
            evidence=("answers is timeout", "process_state is running"),
        )
        return
    if context.resource.runtime is None or context.resource.role is not Role.CACHE:
        return
    yield Remedy(
        diagnosis="the server runs and answers nothing",
        steps=(step(context, "redis_restart", "connections get no answer within 1 s; a cache may lose what it can't save any more"),),
        expected="answers yes, write_ok true",
        evidence=("answers is timeout",),
    )


def _refused_for_another_reason(context: Context) -> bool:
    error = context.observation.reading.values.get("write_error")
    return error is not None and not str(error).startswith("OOM")


def _raised_limit(context: Context) -> int | None:
    """The next limit in MiB; None where it may not be raised, was raised already, or would not help."""
    used, limit, most = measured(context, "used_memory_mib"), measured(context, "maxmemory_mib"), context.resource.limits.memory_mib
    if used is None or limit is None or limit <= 0 or most is None or was_tried(context, "redis_set_maxmemory"):
        return None
    threshold = context.resource.thresholds.memory_percent
    raised = math.ceil(min(max(limit * RAISE_FACTOR, 100 * used / (threshold * SHARE_OF_THRESHOLD)), most))
    helps = raised > limit and 100 * used / raised < threshold
    return raised if helps else None


def _evict_percent(context: Context) -> int | None:
    """70, or less where threshold or use are so low that 70 % would not be healthy or not less; None where there is hardly anything."""
    share = measured(context, "memory_percent")
    if share is None:
        return None
    percent = min(EVICT_TO_PERCENT, math.floor(min(context.resource.thresholds.memory_percent, share) * 0.75))
    return percent if percent >= 10 else None


def _figures(context: Context) -> str:
    values = context.observation.reading.values
    return f"{values.get('used_memory_mib')} of {values.get('maxmemory_mib')} MiB in use ({values.get('memory_percent')} %)"


def _why_raise(context: Context, raised: int) -> str:
    most = context.resource.limits.memory_mib
    return f"{_figures(context)}; {raised} MiB is within limits.memory_mib of {most}, loses nothing and can be taken back"


def _why_evict(context: Context, percent: int) -> str:
    return f"{_figures(context)}; it is a cache, so its least recently used keys may go until {percent} % are in use"


def _why_flush(context: Context) -> str:
    return f"{_figures(context)}; it is a cache, whose contents can be computed again, and nothing milder is left"


def _evidence(context: Context) -> tuple[str, ...]:
    values = context.observation.reading.values
    names = ("memory_percent", "used_memory_mib", "maxmemory_mib", "maxmemory_policy", "write_ok", "write_error")
    return tuple(f"{name} is {values[name]}" for name in names if values.get(name) is not None)
