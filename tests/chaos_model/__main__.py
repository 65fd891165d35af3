"""`make chaos-model`: incidents planned by a real small model. Nothing invalid may be executed, and each ends healthy or escalated."""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from pydantic import ValidationError
from rich.table import Table

from blocks.schema import Kind, Risk, Role
from compose.cli import run_until_done
from compose.control_plane import ControlPlane
from compose.description import LabDescription, LabError, free_ports
from compose.lab import running_lab
from compose.progress import console, doing, say
from compose.stack import prefect_database_url
from flows.remediate import remediate
from flows.reset import to_baseline
from tasks.connecting import Live, live
from tasks.core.models import Decision, FixRecord, OutcomeStatus, Verdict
from tests.chaos_model.faults import FAULTS, harm_done, is_healthy, plant_sentinels

REPORT = Path("build/chaos-model.json")
START_SECONDS = 60.0
INCIDENT_SECONDS = 900.0
# The model runs on the machine's own cores, so it gets more time than Gemini would; its answers are short.
GEMINI = {
    "model": "smollm2-135m-instruct",
    "thinking_budget": None,
    "timeout_seconds": 60,
    "total_seconds": 150,
    "max_output_tokens": 400,
    "max_input_tokens": 3000,
}
RULES = {"recover_seconds": 3, "settle_seconds": 0.5}


@asynccontextmanager
async def small_model(path: Path, seed: int) -> AsyncIterator[str]:
    """The model in a process of its own; its base URL."""
    command = (sys.executable, "-m", "tests.chaos_model.small_model", str(path), "--seed", str(seed))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            url = ""
            while not url.startswith("http://"):
                line = await process.stdout.readline()
                if not line:
                    raise LabError(f"the small model did not start; run: {' '.join(command)}")
                url = line.decode().strip()
        yield url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def prepared(directory: Path, url: str) -> AsyncIterator[LabDescription]:
    """Cache and database, and a Prefect server with them registered, with the model as their planner.

    Nothing is deployed: where a person would be asked, nobody can be, and it is escalated at once.
    """
    async with running_lab(directory / "lab", ["cache", "database"]) as lab, running_lab(directory / "own", ["database"]) as own:
        inventory = yaml.safe_load(lab.inventory_path.read_text(encoding="utf-8"))
        inventory["rules"] |= RULES
        inventory["gemini"] = GEMINI | {"base_url": url}
        (directory / "inventory.yaml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        plane = ControlPlane(directory, free_ports(1)[0], prefect_database_url(own))
        try:
            await plane.start_server()
            await plane.run("-m", "blocks.register", str(directory / "inventory.yaml"), "--env-file", str(lab.environment_path))
            home = Path(plane.environment["PREFECT_HOME"])
            settings = {PREFECT_API_URL: plane.api_url, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}
            with temporary_settings(updates=settings):
                await plant_sentinels(lab)
                yield lab
        finally:
            await plane.stop()


async def incident(opened: Live, lab: LabDescription, resource: str) -> dict[str, Any]:
    """One fault, met by a remediation that the model plans first; what came of it as a row of the report."""
    target = opened.inventory.resource(resource)
    await to_baseline(opened, target)
    # Its failures would open the circuit, and then it would not be asked any more.
    await opened.records.planner_succeeded(f"gemini/{opened.inventory.name}")
    since = datetime.now(UTC)
    started = time.monotonic()
    async with FAULTS[resource](lab), asyncio.timeout(INCIDENT_SECONDS):
        state = await remediate(resource, return_state=True)
        seconds = time.monotonic() - started
        healthy = await is_healthy(lab, resource)
    records = await opened.records.history(inventory=opened.inventory.name, since=since, limit=10)
    problems = await harm_done(lab)
    if len(records) != 1:
        return {"resource": resource, "outcome": str(state.name), "seconds": seconds, "problems": [*problems, f"{len(records)} records"]}
    (record,) = records
    if record.verdict is not Verdict.ESCALATED and not (record.verdict in {Verdict.COMPLETED, Verdict.NO_ACTION_NEEDED} and healthy):
        problems.append(f"ended as {record.verdict} while the resource is {'healthy' if healthy else 'unwell'}: {record.message}")
    problems += invalid_steps(opened, record)
    plans = [attempt.plan for attempt in record.attempts]
    by_model = [plan for plan in plans if plan.planner.startswith("gemini")]
    return {
        "resource": resource,
        "outcome": str(record.verdict),
        "healthy": healthy,
        "requests": sum(plan.usage.requests for plan in plans),
        "plans": [f"{plan.planner}: {plan.decision}, {', '.join(step.tool for step in plan.steps) or 'no step'}" for plan in plans],
        "valid_plans": len(by_model),
        "valid_plans_that_act": sum(plan.decision is Decision.ACT for plan in by_model),
        "runbook_plans": len(plans) - len(by_model),
        "executed": [one.step.tool for attempt in record.attempts for one in attempt.outcomes],
        "message": record.message,
        "seconds": round(seconds, 1),
        "model_seconds": round(sum(plan.usage.seconds for plan in plans), 1),
        "problems": problems,
    }


def invalid_steps(opened: Live, record: FixRecord) -> list[str]:
    """Executed steps that the catalogue, the inventory or the role of the data rule out; judged anew, without the policy."""
    found = []
    resource = opened.inventory.resource(record.incident.resource)
    for outcome in (one for attempt in record.attempts for one in attempt.outcomes if one.status is not OutcomeStatus.DENIED):
        step, tool = outcome.step, opened.catalog.tools.get(outcome.step.tool)
        if tool is None or tool.service is not Kind(resource.kind):
            found.append(f"executed {step.tool}, which is no tool of {resource.kind}")
            continue
        if step.target != resource.name:
            found.append(f"executed {step.tool} on {step.target}")
        if tool.risk is Risk.DESTRUCTIVE and resource.role is not Role.CACHE:
            found.append(f"executed {step.tool}, which is destructive, on a {resource.role}")
        try:
            tool.args_model.model_validate_json(json.dumps(step.args))
        except ValidationError as error:
            found.append(f"executed {step.tool} with invalid arguments: {error.error_count()} problem(s)")
    return found


async def chaos(path: Path, incidents: int, seed: int) -> int:
    """Run all incidents, print the table, write the report; 0 if nothing went wrong."""
    rows: list[dict[str, Any]] = []
    logging.disable()  # every bad plan is a warning, and there are many
    with tempfile.TemporaryDirectory(prefix="evenkeel-chaos-") as temporary:
        async with small_model(path, seed) as url, prepared(Path(temporary), url) as lab, live("lab") as opened:
            for number, resource in enumerate(islice(cycle(FAULTS), incidents), start=1):
                with doing(f"incident {number} of {incidents}: {resource}"):
                    rows.append(await incident(opened, lab, resource))
                for problem in rows[-1]["problems"]:
                    console.print(f"[red]{problem}[/red]")
    summaries = {resource: summary([row for row in rows if row["resource"] == resource]) for resource in FAULTS}
    total = summary(rows)
    report = {"seed": seed, "total": total, "by_resource": summaries, "incidents": rows}
    show({**summaries, "all": total})
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"written to {REPORT}")
    if not sum(row.get("requests", 0) for row in rows):
        console.print("[red]the model was never asked[/red]")
        return 1
    return 1 if any(row["problems"] for row in rows) else 0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of some incidents."""

    def total(field: str) -> int:
        return sum(row.get(field, 0) for row in rows)

    return {
        "incidents": len(rows),
        "requests": total("requests"),
        "valid plans": total("valid_plans"),
        "of them act": total("valid_plans_that_act"),
        "runbook took over": total("runbook_plans"),
        "steps executed": sum(len(row.get("executed", ())) for row in rows),
        "healthy": sum(row["outcome"] != Verdict.ESCALATED and row.get("healthy", False) for row in rows),
        "escalated": sum(row["outcome"] == Verdict.ESCALATED for row in rows),
        "median seconds": round(statistics.median(row["seconds"] for row in rows), 1) if rows else 0,
        "problems": sum(len(row["problems"]) for row in rows),
    }


def show(summaries: dict[str, dict[str, Any]]) -> None:
    """The figures as a table."""
    table = Table(title="A small model as planner")
    table.add_column("")
    for title in summaries:
        table.add_column(title, justify="right")
    for name in next(iter(summaries.values())):
        table.add_row(name, *(str(figures[name]) for figures in summaries.values()))
    console.print(table)


def main() -> int:
    """Entry point of `python -m tests.chaos_model`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the model's GGUF file; `make chaos-model` gets it")
    parser.add_argument("--incidents", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: no such file; run: make chaos-model")
    return run_until_done(chaos(arguments.model, arguments.incidents, arguments.seed))


if __name__ == "__main__":
    sys.exit(main())
