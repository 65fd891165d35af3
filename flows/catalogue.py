"""Try many faults by hand, one after another: the whole catalogue, or a part of it. Only on an inventory marked as a lab."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.remediate import AutonomyChoice
from flows.scenario import DRY_RUNS, scenario, target_of
from tasks.catalog import load_catalog
from tasks.connecting import live
from tasks.core.scoring import ScenarioResult, inconclusive

Row = dict[str, Any]
SHOWN = (
    "scenario",
    "outcome",
    "expected",
    "detected_seconds",
    "healthy_seconds",
    "requests_failed",
    "data_unharmed",
    "tools",
    "problems",
)


@flow(name="catalogue", flow_run_name="Try the catalogue on {inventory}", persist_result=True)
async def catalogue(
    names: list[str] | None = None,
    inventory: str = "lab",
    timeout_seconds: float = 60,
    sustain_seconds: float = 10,
    autonomy: AutonomyChoice = "as configured",
) -> State[Any]:
    """Inject faults into a lab one after another, and judge how each is met.

    Args:
        names: The faults; empty: every one that the inventory has what it needs for.
        inventory: Name of an inventory marked `lab: true`.
        timeout_seconds: How long detection and remediation of one may take together.
        sustain_seconds: How long everything must stay well after each remediation, while the fault's cause goes on.
        autonomy: `propose` and `observe` are dry runs: what would be injected is told, and nothing is done.
    """
    known = load_catalog().scenarios
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"names: no scenario {unknown[0]!r}; known: {', '.join(known)}")
    rows: list[Row] = []
    async with live(inventory) as opened:
        for name in names or known:
            try:
                target_of(known[name], opened.inventory)
            except ValueError as error:
                get_run_logger().info("left out: %s", error)
                continue
            state: State[Any] = await scenario(name, inventory, timeout_seconds, sustain_seconds, autonomy, return_state=True)
            if autonomy in DRY_RUNS:
                continue
            found = await state.aresult(raise_on_failure=False)
            result = found if isinstance(found, ScenarioResult) else inconclusive(known[name], state.message or "no result")
            rows.append(result.model_dump(mode="json"))
            await _publish(inventory, rows)
    if autonomy in DRY_RUNS:
        return Completed(message="dry run, nothing was injected; each fault's own run tells what would be")
    wrong = [row["scenario"] for row in rows if row["problems"]]
    expected = sum(row["as_expected"] for row in rows)
    message = f"{len(rows)} faults: {expected} ended as expected, {len(wrong)} wrong {', '.join(wrong)}".strip()
    return Failed(message=message, data=rows) if wrong else Completed(message=message, data=rows)


async def _publish(inventory: str, rows: list[Row]) -> None:
    table = [{name: row.get(name) for name in SHOWN} for row in rows]
    await acreate_table_artifact(table, key=f"catalogue-{inventory}", description=f"Faults tried on {inventory}, as they ended")
