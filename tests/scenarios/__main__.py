"""`make scenarios`: try the whole catalogue of faults against real servers, and print a row for each."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory
from compose.cli import run_until_done
from compose.demo import try_scenario
from compose.description import LabError
from compose.progress import console, say
from compose.stack import LAB_KINDS, LabKind, Stack, stack
from flows.scenario import target_of
from tasks.catalog import load_catalog
from tasks.scenarios import NOT_INJECTED
from tests.scenarios.gate import IN_THE_GATE
from tests.scenarios.report import summary, table_of
from tests.tasks.engine import why_there_is_no_engine

REPORT = Path("build/scenarios.json")
Row = dict[str, Any]


@dataclass
class Trials:
    """The scenarios still to be tried on one kind of lab, and what came of the others."""

    lab: LabKind
    todo: list[str]
    sustain_seconds: float
    rows: list[Row] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)

    async def run(self, running: Stack) -> None:
        """Try what is left, until nothing is; several stacks may do so side by side."""
        inventory = read_inventory(running)
        while self.todo:
            name = self.todo.pop(0)
            try:
                target_of(load_catalog().scenarios[name], inventory)
            except ValueError as error:
                self.unfit[name] = str(error)
                continue
            began = time.monotonic()
            row = await self._tried(running, name, inventory.name)
            self.rows.append({"lab": self.lab, **row, "seconds": round(time.monotonic() - began, 1)})
            say(f"{self.lab}: {name}: {row['outcome']}, {time.monotonic() - began:.0f} s")
            for problem in row["problems"]:
                console.print(f"[red]  {problem}[/red]")

    async def _tried(self, running: Stack, name: str, inventory: str) -> Row:
        """Its row; one that could not be injected or restored is a row with that problem, and so a failure."""
        try:
            return await try_scenario(running, name, inventory=inventory, sustain_seconds=self.sustain_seconds)
        except LabError as error:
            expected = load_catalog().scenarios[name].expects
            return {"scenario": name, "outcome": "inconclusive", "expected": expected, "as_expected": False, "problems": [str(error)]}


def read_inventory(running: Stack) -> Inventory:
    """The inventory that the lab wrote."""
    lines = running.lab.environment_path.read_text(encoding="utf-8").splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    return parse_inventory(running.lab.inventory_path.read_text(encoding="utf-8"), environment).inventory


def chosen(only: Sequence[str], *, gate: bool) -> list[str]:
    """Names of the scenarios to try; LabError names an unknown one."""
    known = load_catalog().scenarios
    for name in (*only, *IN_THE_GATE):
        if name not in known:
            raise LabError(f"no scenario {name!r}; known: {', '.join(known)}")
    return list(only or (IN_THE_GATE if gate else known))


def usable(labs: Sequence[LabKind]) -> list[LabKind]:
    """The labs that can be had here; where no engine answers, containers are left out and that is said."""
    why = why_there_is_no_engine() if "containers" in labs else ""
    if why:
        say(f"containers are left out: {why}")
    return [lab for lab in labs if lab == "processes" or not why]


async def scenarios(directory: Path, labs: Sequence[LabKind], names: Sequence[str], stacks: int, sustain_seconds: float) -> int:
    """Try them, print the tables, write the report; 0 if every one ended as expected or with a person called, and without harm."""
    began = time.monotonic()
    all_trials = [Trials(lab, list(names), sustain_seconds) for lab in usable(labs)]
    one_at_a_time = asyncio.Lock()

    async def work(trials: Trials, number: int) -> None:
        # Bringing one up takes both cores; those that are up go on meanwhile.
        await one_at_a_time.acquire()
        is_starting = True
        try:
            project = f"evenkeel-trials-{os.getpid()}-{number}"
            async with stack(directory / f"trials-{trials.lab}-{number}", lab_kind=trials.lab, project=project) as running:
                one_at_a_time.release()
                is_starting = False
                say(f"{trials.lab}: can be looked at while it runs: {running.plane.ui_url}")
                await trials.run(running)
        finally:
            if is_starting:
                one_at_a_time.release()

    async with asyncio.TaskGroup() as group:
        for number in range(stacks):
            for trials in all_trials:
                group.create_task(work(trials, number))
    failed = 0
    for trials in all_trials:
        trials.rows.sort(key=lambda row: str(row["scenario"]))
        console.print(table_of(trials.lab, trials.rows))
        console.print(summary(trials.lab, trials.rows))
        failed += sum(bool(row["problems"]) for row in trials.rows)
    for number, why in sorted(NOT_INJECTED.items()):
        console.print(f"[dim]catalogue {number}: not injected: {why}[/dim]")
    document = {
        "seconds": round(time.monotonic() - began, 1),
        "trials": [row for trials in all_trials for row in trials.rows],
        "not_here": {trials.lab: trials.unfit for trials in all_trials},
        "not_injected": NOT_INJECTED,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    say(f"{document['seconds']:.0f} s in all; the same as JSON: {REPORT}")
    return 1 if failed else 0


def main() -> int:
    """Entry point of `python -m tests.scenarios`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where labs, servers and records are kept")
    parser.add_argument("--labs", nargs="+", choices=LAB_KINDS, default=LAB_KINDS, help="what runs the lab's servers")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="just these scenarios")
    parser.add_argument("--gate", action="store_true", help="just the third of the catalogue that the gate tries")
    parser.add_argument("--stacks", type=int, default=2, help="how many labs of each kind are used side by side")
    parser.add_argument("--sustain-seconds", type=float, default=10, help="how long everything must stay well after a remediation")
    given = parser.parse_args()

    async def work() -> int:
        return await scenarios(given.directory, given.labs, chosen(given.only, gate=given.gate), given.stacks, given.sustain_seconds)

    return run_until_done(work())


if __name__ == "__main__":
    sys.exit(main())
