"""`make scenarios`: try the whole catalogue of faults against real servers, and print a row for each."""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory
from compose.cli import run_until_done
from compose.demo import try_scenario
from compose.description import LabError
from compose.progress import console, doing, say
from compose.stack import Stack, stack
from flows.scenario import target_of
from tasks.catalog import load_catalog
from tasks.scenarios import NOT_INJECTED

REPORT = Path("build/scenarios.json")
SHOWN = {
    "scenario": "scenario",
    "outcome": "ended as",
    "expected": "expected",
    "detected_seconds": "detected after",
    "healthy_seconds": "healthy after",
    "requests_failed": "requests failed",
    "data_unharmed": "data unharmed",
    "tools": "tools",
}


def choose(inventory: Inventory, only: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The scenarios that an inventory has what they need for, and why not the others; LabError names an unknown one."""
    known = load_catalog().scenarios
    for name in only:
        if name not in known:
            raise LabError(f"--only: no scenario {name!r}; known: {', '.join(known)}")
    fitting: list[str] = []
    unfit: dict[str, str] = {}
    for name in only or known:
        try:
            target_of(known[name], inventory)
        except ValueError as error:
            unfit[name] = str(error)
        else:
            fitting.append(name)
    return fitting, unfit


async def try_all(running: Stack, inventory: Inventory, only: Sequence[str], sustain_seconds: float) -> list[dict[str, Any]]:
    """One row for each scenario that can be tried there. One that could not be injected or restored is a row with that problem."""
    rows: list[dict[str, Any]] = []
    fitting, unfit = choose(inventory, only)
    for name, why in unfit.items():
        say(f"{name}: not here: {why}")
    for name in fitting:
        with doing(f"{name} on {inventory.name}"):
            try:
                row = await try_scenario(running, name, inventory=inventory.name, sustain_seconds=sustain_seconds)
            except LabError as error:
                row = {
                    "scenario": name,
                    "outcome": "inconclusive",
                    "expected": load_catalog().scenarios[name].expects,
                    "problems": [str(error)],
                }
            rows.append({"inventory": inventory.name, **row})
        for problem in row["problems"]:
            console.print(f"[red]  {problem}[/red]")
    return rows


def inconclusive(name: str, why: str) -> dict[str, Any]:
    """The row of a trial that says nothing, which is a failure."""
    expected = load_catalog().scenarios[name].expects
    return {"scenario": name, "outcome": "inconclusive", "expected": expected, "as_expected": False, "problems": [why]}


def read_inventory(running: Stack) -> Inventory:
    """The inventory that the lab wrote."""
    lines = running.lab.environment_path.read_text(encoding="utf-8").splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    return parse_inventory(running.lab.inventory_path.read_text(encoding="utf-8"), environment).inventory


def table_of(rows: Iterable[dict[str, Any]]) -> Table:
    """The rows as a person reads them."""
    table = Table(title="Seconds count from the start of the injection")
    for title in SHOWN.values():
        table.add_column(title, overflow="fold")
    for row in rows:
        style = "red" if row["problems"] else "yellow" if not row["as_expected"] else None
        table.add_row(*(cell(row.get(field)) for field in SHOWN), style=style)
    return table


def cell(value: object) -> str:
    """A value of a row as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return f"{value:.2f} s" if isinstance(value, float) else "" if value is None else str(value)


async def scenarios(directory: Path, only: Sequence[str], sustain_seconds: float) -> int:
    """Try them, print the table, write the report; 0 if every one ended as expected or with a person called, and without harm."""
    began = time.monotonic()
    async with stack(directory) as running:
        say(f"everything can be looked at while it runs: {running.plane.ui_url}")
        rows = await try_all(running, read_inventory(running), only, sustain_seconds)
    console.print(table_of(rows))
    expected, called = sum(row["as_expected"] for row in rows), sum(row["outcome"] == "escalated" for row in rows)
    failed = [row for row in rows if row["problems"]]
    seconds = time.monotonic() - began
    console.print(f"{len(rows)} trials in {seconds:.0f} s: {expected} as expected, {called} with a person called, {len(failed)} wrong")
    for number, why in sorted(NOT_INJECTED.items()):
        console.print(f"[dim]catalogue {number}: not injected: {why}[/dim]")
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"trials": rows, "not_injected": NOT_INJECTED}, indent=2) + "\n", encoding="utf-8")
    say(f"the same as JSON: {REPORT}")
    return 1 if failed else 0


def main() -> int:
    """Entry point of `python -m tests.scenarios`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="just these scenarios")
    parser.add_argument("--sustain-seconds", type=float, default=10, help="how long everything must stay well after a remediation")
    arguments = parser.parse_args()
    return run_until_done(scenarios(arguments.directory, arguments.only, arguments.sustain_seconds))


if __name__ == "__main__":
    sys.exit(main())
