"""What the Prefect UI shows: artifacts under constant keys, so that their versions make a history."""

from collections.abc import Mapping, Sequence

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from tasks.catalog import Catalog
from tasks.connecting import Live
from tasks.core.models import Context, FixRecord, Health, Observation, Plan
from tasks.core.policy import Ruling
from tasks.core.rendering import history_row, incident_markdown, planning_markdown, status_row, validation_rows

HISTORY_ROWS = 100


async def publish_status(
    live: Live, observations: Sequence[Observation], history: Mapping[str, Sequence[float]], states: Mapping[str, str]
) -> None:
    """The status table of the inventory, what is worst first."""
    worst_first = sorted(observations, key=lambda one: (one.health is Health.HEALTHY, one.resource))
    rows = [
        status_row(one, live.catalog.probes[one.kind].headline, history.get(one.resource, ()), states.get(one.resource, ""))
        for one in worst_first
    ]
    healthy = sum(one.health is Health.HEALTHY for one in observations)
    await acreate_table_artifact(
        rows, key=f"status-{live.inventory.name}", description=f"## {healthy} of {len(rows)} resources are healthy"
    )


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


async def publish_unmatched(inventory: str, labels: Mapping[str, int]) -> None:
    """Alerts that no resource was found for, the latest first: labels -> how often they came."""
    rows = [{"times": times, "labels": shown} for shown, times in reversed([*labels.items()])]
    remedy = "The label `evenkeel_resource` says which resource an alert is about."
    await acreate_table_artifact(rows, key=f"unmatched-alerts-{inventory}", description=f"Alerts about no known resource. {remedy}")


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
