"""What the Prefect UI shows: artifacts under constant keys, so that their versions make a history."""

from collections.abc import Awaitable, Mapping, Sequence

import httpx
from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from blocks.schema import Kind
from tasks.catalog import Catalog
from tasks.connecting import Live
from tasks.core.models import Context, FixRecord, Health, Observation, Plan
from tasks.core.policy import Ruling
from tasks.core.rendering import (
    ARROW,
    MARK,
    Row,
    history_row,
    incident_markdown,
    number,
    planning_markdown,
    status_row,
    validation_rows,
)
from tasks.core.replay import Comparison, Ruled, ShadowAnswer, agreement
from tasks.core.replay_rendering import agreement_text, comparison_row, shadow_markdown
from tasks.core.verdicts import trend
from tasks.records.rows import Status

HISTORY_ROWS = 100


async def published(publication: Awaitable[None]) -> None:
    """Wait for a publication; one that Prefect's server does not take, such as while it is away, stops nothing that heals."""
    try:
        await publication
    except (httpx.HTTPError, OSError) as error:
        get_run_logger().warning("an artifact could not be published: %s", type(error).__name__)


async def publish_status(
    live: Live,
    observations: Sequence[Observation],
    history: Mapping[str, Sequence[float]],
    states: Mapping[str, str],
    *,
    as_table: bool = True,
) -> None:
    """Keep the status of what was observed; `as_table`: and show one table of the whole inventory, what is worst first.

    What another monitor watches stands there as that one left it.
    """
    name, probes = live.inventory.name, live.catalog.probes
    await live.records.save_statuses(name, [_status(one, probes[one.kind].headline) for one in observations])
    if not as_table:
        return
    shown = {
        one.resource: (one.health, status_row(one, probes[one.kind].headline, history.get(one.resource, ()), states.get(one.resource, "")))
        for one in observations
    }
    others = {resource.name: resource for resource in live.inventory.resources if resource.name not in shown}
    if others:
        for left in await live.records.statuses(name):
            if left.resource in others:
                resource = others[left.resource]
                shown[left.resource] = (left.health, left_row(left, resource.kind, probes[resource.kind].headline))
    rows = [row for _, row in sorted(shown.values(), key=lambda one: (one[0] is Health.HEALTHY, str(one[1]["resource"])))]
    healthy = sum(health is Health.HEALTHY for health, _ in shown.values())
    await acreate_table_artifact(rows, key=f"status-{name}", description=f"## {healthy} of {len(rows)} resources are healthy")


def _status(one: Observation, headline: str) -> Status:
    value = one.reading.values.get(headline)
    figure = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return Status(resource=one.resource, health=one.health, summary=one.summary, headline=figure, taken_at=one.taken_at)


def left_row(left: Status, kind: Kind, headline: str) -> Row:
    """A resource in the status table as its own monitor left it; the time is that of its last change."""
    return {
        "resource": left.resource,
        "kind": str(kind),
        "health": f"{MARK[left.health]} {left.health}",
        "reading": "" if left.headline is None else f"{headline} {number(left.headline)}",
        "trend": ARROW[trend(left.trend)],
        "what": left.summary or "all checks pass",
        "now": "",
        "measured": f"{left.taken_at:%H:%M:%SZ}",
    }


async def publish_planning(context: Context, plan: Plan, rulings: Sequence[Ruling]) -> None:
    """The planner's question and answer."""
    words = [f"{ruling.action}, {ruling.reason}" for ruling in rulings]
    await acreate_markdown_artifact(
        planning_markdown(context, plan, words),
        key=f"planning-{context.resource.name}",
        description=f"Question to and answer of the planner {plan.planner}",
    )


async def publish_fix(live: Live, record: FixRecord) -> None:
    """The incident, its validation step by step, and the history of fixes."""
    resource = record.incident.resource
    await acreate_markdown_artifact(incident_markdown(record), key=f"incident-{resource}", description=record.message)
    await acreate_table_artifact(
        validation_rows(record), key=f"validation-{resource}", description=f"Before and after, step by step: {resource}"
    )
    records = await live.records.history(inventory=live.inventory.name, limit=HISTORY_ROWS)
    await acreate_table_artifact(
        [history_row(one) for one in records], key=f"fixes-{live.inventory.name}", description="Fixes, newest first"
    )


async def publish_comparisons(inventory: str, comparisons: Sequence[Comparison]) -> None:
    """Plans that were made again, each beside the one that was made."""
    description = agreement_text(agreement(comparisons))
    await acreate_table_artifact([comparison_row(one) for one in comparisons], key=f"replan-{inventory}", description=description)


async def publish_shadow(resource: str, acted: Ruled | None, shadow: ShadowAnswer) -> None:
    """What a planner in the shadow would have done beside the one that acts."""
    told = f"Plan of {shadow.planner} in the shadow; nothing of it is executed"
    await acreate_markdown_artifact(shadow_markdown(resource, acted, shadow), key=f"shadow-{resource}", description=told)


async def publish_unmatched(inventory: str, labels: Mapping[str, int]) -> None:
    """Alerts that no resource was found for, the latest first: labels -> how often they came."""
    rows = [{"times": times, "labels": shown} for shown, times in reversed([*labels.items()])]
    remedy = "The label `evenkeel_resource` says which resource an alert is about."
    await acreate_table_artifact(rows, key=f"unmatched-alerts-{inventory}", description=f"Alerts about no known resource. {remedy}")


async def publish_discovery(live: Live) -> None:
    """What was found in Google Cloud beside what is declared, and what could not be seen; nothing where none was asked for."""
    discovery = None if live.google is None else live.google.discovery
    if discovery is None:
        return
    rows = [
        {"resource": "", "kind": kind, "instance": "", "location": "", "role": "", "not seen": why} for kind, why in discovery.unseen
    ] + [
        {
            "resource": one.name,
            "kind": str(one.kind),
            "instance": one.address,
            "location": one.cloud.location or "",
            "role": str(one.role),
            "not seen": "",
        }
        for one in discovery.resources
    ]
    unseen = f"; not seen: {len(discovery.unseen)}" if discovery.unseen else ""
    told = f"## {len(discovery.resources)} instances found beside the declared ones{unseen}"
    await acreate_table_artifact(rows, key=f"discovered-{live.inventory.name}", description=told)


async def publish_tools(catalog: Catalog) -> None:
    """The tools that a plan may use."""
    rows = [
        {
            "tool": tool.name,
            "kind": str(tool.service),
            "what it does": tool.summary,
            "risk": str(tool.risk),
            "undo": tool.undo or "",
            "arguments": ", ".join(tool.args_model.model_fields),
        }
        for tool in catalog.tools.values()
    ]
    await acreate_table_artifact(rows, key="tools", description="Tools: what a plan may consist of")
