"""`make demo`: heal three faults on real servers, with Prefect's server, schedule, subflow and task runs in the path."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from rich.table import Table

from compose.cli import run_until_done
from compose.description import LabError
from compose.progress import console, doing, say
from compose.stack import LAB_KINDS, LabKind, Running, stack

SCENARIOS = ("redis_memory_pressure", "postgres_connection_overload", "nginx_connection_overload")
REPORT = Path("build/demo.json")
SCENARIO_SECONDS = 180.0
SUSTAIN_SECONDS = 2.0
GOAL_SECONDS = 5.0
SHOWN = {
    "scenario": "scenario",
    "planner": "planner",
    "detected_seconds": "detected after",
    "planned_seconds": "planned after",
    "healthy_seconds": "healthy after",
    "requests_failed": "requests failed",
    "data_unharmed": "data unharmed",
    "outcome": "outcome",
}


async def try_scenario(
    running: Running,
    name: str,
    *,
    deployment: str = "scenario/by-hand",
    seconds: float = SCENARIO_SECONDS,
    sustain_seconds: float = SUSTAIN_SECONDS,
    **parameters: Any,
) -> dict[str, Any]:
    """Start a scenario as a person would, by its deployment, and wait for its result; LabError where it gives none in so many seconds."""
    given = {"name": name, "sustain_seconds": sustain_seconds, **parameters}
    with running.client():
        run: FlowRun = await arun_deployment(deployment, parameters=given, timeout=seconds, poll_interval=0.5, as_subflow=False)
        if run.state is None or not run.state.is_final():
            raise LabError(f"{name}: not finished within {seconds:g} s; see {running.plane.ui_url}/runs/flow-run/{run.id}")
        result = await run.state.aresult(raise_on_failure=False)
    if isinstance(result, Exception):
        raise LabError(f"{name}: {run.state.message}; see {running.plane.ui_url}/runs/flow-run/{run.id}")
    row: dict[str, Any] = result.model_dump(mode="json")
    return row


async def demo(directory: Path, lab_kind: LabKind) -> int:
    """Run all scenarios, print the table, write the report; 0 if every one of them passed."""
    rows: list[dict[str, Any]] = []
    async with stack(directory, lab_kind=lab_kind) as running:
        say(f"everything can be looked at while it runs: {running.plane.ui_url}")
        for name in SCENARIOS:
            with doing(name):
                rows.append(await try_scenario(running, name))
    return report(rows, dict.fromkeys(SCENARIOS, GOAL_SECONDS), REPORT)


def report(rows: list[dict[str, Any]], goals: Mapping[str, float], path: Path) -> int:
    """Print the table and write it; 0 where every scenario ended as expected, healthy within its goal in seconds."""
    table = Table(title="Seconds count from the start of the injection")
    for title in SHOWN.values():
        table.add_column(title)
    for row in rows:
        table.add_row(*(_cell(row[field]) for field in SHOWN))
    console.print(table)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([{field: row[field] for field in SHOWN} for row in rows], indent=2) + "\n", encoding="utf-8")
    say(f"the same as JSON: {path}")
    failures = [f"{row['scenario']}: {problem}" for row in rows for problem in problems_of(row, goals[row["scenario"]])]
    for failure in failures:
        console.print(f"[red]{failure}[/red]")
    return 1 if failures else 0


def problems_of(row: dict[str, Any], goal_seconds: float) -> list[str]:
    """What was not as expected, among it a healing that took longer than the goal."""
    problems = list(row["problems"])
    if not row["as_expected"]:
        problems.append(f"ended as {row['outcome']}, expected {row['expected']}: {row['message']}")
    healthy = row["healthy_seconds"]
    if healthy is not None and healthy > goal_seconds:
        problems.append(f"healthy after {healthy:.2f} s, the goal is {goal_seconds:g} s")
    return problems


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "[red]no[/red]"
    return f"{value:.2f} s" if isinstance(value, float) else str(value)


def main() -> int:
    """Entry point of `python -m compose.demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--lab", choices=LAB_KINDS, default=LAB_KINDS[0], help="what runs the lab's servers")
    arguments = parser.parse_args()
    return run_until_done(demo(arguments.directory, arguments.lab))


if __name__ == "__main__":
    sys.exit(main())
