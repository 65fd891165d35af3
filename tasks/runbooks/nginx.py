"""What is done about Nginx, least destructive first. Where the cause lies elsewhere or can't be told, nothing is yielded."""

import math
from collections.abc import Iterator

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.runbooks.steps import evidence, measured, step, was_tried

RAISE_FACTOR = 2
SHARE_AFTER_PERCENT = 40
UNDECLARED_LIMIT = 4096
"""How far worker_connections is raised where limits.connections does not say: a free slot costs less than 1 KB."""
DRAIN_SECONDS = 1
BEHIND = frozenset({"upstream_failing", "upstream_unreachable", "upstream_timeout"})
"""What is behind Nginx does not answer as it should."""


@runbook(service=Kind.NGINX, symptoms={"connections_high", "page_failing"}, title="Nginx's connections are used up")
def nginx_connections(context: Context) -> Iterator[Remedy]:
    """Double worker_connections within limits.connections; then end the connections that are held.

    Speaks only where the connections are measured to be the reason: a page that fails while they are few has another one. Nor where
    what is behind Nginx does not answer: connections then pile up behind any limit, and more of them would only queue more.
    """
    symptoms = {finding.symptom for finding in context.observation.findings}
    if "connections_high" not in symptoms or symptoms & BEHIND:
        return
    raised = _raised_limit(context)
    if raised is not None:
        yield Remedy(
            diagnosis="worker_connections is too small for the connections that are held",
            steps=(step(context, "nginx_scale_connections", _why_raise(context, raised), worker_connections=raised),),
            expected=_expected(context),
            evidence=_evidence(context),
        )
    why = (
        f"{_figures(context)}; raising the limit is used up or did not help. New workers take over at once; requests under way in the "
        f"old ones get {DRAIN_SECONDS} s to end and are cut then"
    )
    yield Remedy(
        diagnosis="connections are held and not released",
        steps=(step(context, "nginx_clear_connections", why, drain_seconds=DRAIN_SECONDS),),
        expected=_expected(context),
        evidence=_evidence(context),
    )


@runbook(service=Kind.NGINX, symptoms={"down"}, title="Nginx is down")
def nginx_down(context: Context) -> Iterator[Remedy]:
    """Start Nginx where the inventory names its runtime.

    Not where its workers run: then it listens somewhere else than the inventory says, and only a person knows which of the two is right.
    """
    if context.resource.runtime is None or measured(context, "worker_processes"):
        return
    error = context.observation.reading.values.get("error")
    why = f"no connection is accepted ({error}) and no worker runs; there is nothing to interrupt"
    yield Remedy(
        diagnosis="Nginx is not running",
        steps=(step(context, "nginx_restart", why),),
        expected="answers yes, page_ok true",
        evidence=_evidence(context),
    )


@runbook(service=Kind.NGINX, symptoms={"unresponsive"}, title="Nginx does not answer")
def nginx_unresponsive(context: Context) -> Iterator[Remedy]:
    """Give it new workers, then restart it: nothing that works is interrupted, as it answers nothing."""
    workers, stopped = measured(context, "worker_processes"), measured(context, "stopped_workers")
    if workers is not None:
        why = f"{workers:g} workers run, {stopped or 0:g} are stopped, none answers; new ones take over the sockets, the master stays"
        yield Remedy(
            diagnosis="the workers hang",
            steps=(step(context, "nginx_reload", why),),
            expected="answers yes, page_ok true",
            evidence=_evidence(context),
        )
    if context.resource.runtime is not None:
        yield Remedy(
            diagnosis="Nginx hangs",
            steps=(
                step(context, "nginx_restart", "it takes connections and answers none, and new workers are no way out or did not help"),
            ),
            expected="answers yes, page_ok true",
            evidence=_evidence(context),
        )


def _raised_limit(context: Context) -> int | None:
    """Twice the limit, or more until the connections are 40 % of it; None where that is too much, was tried, or would not help."""
    used, limit, workers = (measured(context, name) for name in ("connections_used", "worker_connections", "worker_processes"))
    if used is None or not limit or not workers or was_tried(context, "nginx_scale_connections"):
        return None
    most = context.resource.limits.connections or UNDECLARED_LIMIT
    wanted = max(RAISE_FACTOR * limit, math.floor(100 * used / workers / SHARE_AFTER_PERCENT) + 1)
    raised = min(math.floor(wanted), most)
    helps = raised > limit and 100 * used / workers / raised < context.resource.thresholds.connections_percent
    return raised if helps else None


def _figures(context: Context) -> str:
    values = context.observation.reading.values
    used, most, percent = (values.get(f"connections_{name}") for name in ("used", "max", "percent"))
    return f"{used} of {most} connections are in use ({percent} %)"


def _why_raise(context: Context, raised: int) -> str:
    limits = context.resource.limits.connections
    bound = f"limits.connections of {limits}" if limits is not None else f"{UNDECLARED_LIMIT}, the bound where the inventory sets none"
    return f"{_figures(context)}; {raised} for each worker is within {bound}, cuts no request and can be taken back"


def _expected(context: Context) -> str:
    return f"connections_percent below {context.resource.thresholds.connections_percent:g}, page_ok true"


def _evidence(context: Context) -> tuple[str, ...]:
    names = (
        "answers",
        "page_ok",
        "page_status",
        "connections_percent",
        "busiest_worker_percent",
        "connections_used",
        "connections_max",
        "worker_processes",
        "draining_workers",
        "stopped_workers",
    )
    return evidence(context.observation.reading.values, *names)
