"""`make scenarios`: try the whole catalogue of faults against real servers, and print a row for each."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment

from compose.cli import run_until_done
from compose.description import LabError
from compose.google_cloud.world import default_world
from compose.progress import console, say
from compose.stack import LAB_KINDS, Running, cloud_stack, stack
from tasks.catalog import load_catalog
from tasks.scenarios import NOT_INJECTED
from tests.scenarios.gate import IN_THE_GATE, PLACES, Place
from tests.scenarios.report import summary, table_of
from tests.tasks.engine import why_there_is_no_engine

REPORT = Path("build/scenarios.json")
START_SECONDS = 120.0
SCENARIO_SECONDS = 120.0
POLL_SECONDS = 2.0
STACKS_AT_ONCE = 3
"""More of them on two cores and a fault is met late, which is not what is asked here."""
Row = dict[str, Any]


@dataclass
class Trials:
    """The scenarios of one kind of lab, dealt out to labs that are used side by side, and what came of them."""

    lab: Place
    sustain_seconds: float
    rows: list[Row] = field(default_factory=list)

    async def run(self, running: Running, names: Sequence[str]) -> None:
        """Try them, and once more those whose fault could not be brought about: nothing can be said of them. The report names each."""
        found = await self._tried(running, names)
        again = [row["scenario"] for row in found if row["outcome"] == "inconclusive"]
        if again:
            first = {row["scenario"]: row["problems"] for row in found}
            rows = await self._tried(running, again)
            found = [row for row in found if row["scenario"] not in again]
            found += [{**row, "inconclusive_before": first[row["scenario"]]} for row in rows]
        self.rows += [{"lab": self.lab, **row} for row in found]

    async def _tried(self, running: Running, names: Sequence[str]) -> list[Row]:
        """A row a scenario, one after another in one run of `catalogue/by-hand`; LabError where it does not come to an end."""
        inventory = "cloud" if self.lab == "cloud" else "lab"
        parameters = {"names": list(names), "inventory": inventory, "sustain_seconds": self.sustain_seconds}
        with running.client():
            started: FlowRun = await arun_deployment("catalogue/by-hand", parameters=parameters, timeout=0, as_subflow=False)
            run = await self._ended(started, len(names))
            found = None if run.state is None else await run.state.aresult(raise_on_failure=False)
        if run.state is None or not isinstance(found, list):
            raise LabError(f"{self.lab}: {run.state and run.state.message}; see {running.plane.ui_url}/runs/flow-run/{run.id}")
        return found

    async def _ended(self, run: FlowRun, count: int) -> FlowRun:
        """The run when it has ended; each of its trials is told of meanwhile."""
        told: set[UUID] = set()
        deadline = time.monotonic() + START_SECONDS + count * SCENARIO_SECONDS
        of_run = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
        async with get_client() as client:
            while time.monotonic() < deadline:
                run = await client.read_flow_run(run.id)
                for trial in await client.read_flow_runs(flow_run_filter=of_run, limit=200):
                    if trial.state is not None and trial.state.is_final() and trial.id not in told:
                        told.add(trial.id)
                        say(f"{self.lab}: {trial.name}: {trial.state.message} ({trial.total_run_time.total_seconds():.0f} s)")
                if run.state is not None and run.state.is_final():
                    return run
                await asyncio.sleep(POLL_SECONDS)
        raise LabError(f"{self.lab}: {count} trials did not end within {deadline:g} s")


def _starting(directory: Path, lab: Place, project: str) -> AbstractAsyncContextManager[Running]:
    if lab == "cloud":
        return cloud_stack(directory, default_world())
    return stack(directory, lab_kind=lab, project=project)


def chosen(lab: Place, only: Sequence[str], *, gate: bool) -> list[str]:
    """Names of the scenarios to try there; LabError names an unknown one."""
    known = load_catalog().scenarios
    names = only or (IN_THE_GATE[lab] if gate else tuple(known))
    for name in names:
        if name not in known:
            raise LabError(f"no scenario {name!r}; known: {', '.join(known)}")
    return list(names)


def usable(labs: Sequence[Place]) -> list[Place]:
    """The labs that can be had here; where no engine answers, containers are left out and that is said."""
    why = why_there_is_no_engine() if "containers" in labs else ""
    if why:
        say(f"containers are left out: {why}")
    return [lab for lab in labs if lab != "containers" or not why]


async def scenarios(directory: Path, names: Mapping[Place, Sequence[str]], stacks: int, sustain_seconds: float) -> int:
    """Try them, print the tables, write the report; 0 if every one ended as expected or with a person called, and without harm."""
    began = time.monotonic()
    all_trials = [Trials(lab, sustain_seconds) for lab in usable([*names])]
    places = asyncio.Semaphore(STACKS_AT_ONCE)
    one_at_a_time = asyncio.Lock()

    async def work(trials: Trials, number: int) -> None:
        async with places, AsyncExitStack() as cleanup:
            # Bringing one up takes both cores; those that are up go on meanwhile.
            async with one_at_a_time:
                place = directory / f"trials-{trials.lab}-{number}"
                running = await cleanup.enter_async_context(_starting(place, trials.lab, f"evenkeel-trials-{number}"))
            say(f"{trials.lab}: can be looked at while it runs: {running.plane.ui_url}")
            await trials.run(running, names[trials.lab][number::stacks])

    async with asyncio.TaskGroup() as group:
        for trials in all_trials:
            for number in range(stacks):
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
    parser.add_argument("--labs", nargs="+", choices=PLACES, default=[], help="what runs the lab's servers; cloud: a simulated project")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="just these scenarios")
    parser.add_argument("--gate", action="store_true", help="just the part of the catalogue that the gate tries")
    parser.add_argument("--stacks", type=int, default=STACKS_AT_ONCE, help="how many labs of each kind are used side by side")
    parser.add_argument("--sustain-seconds", type=float, default=10, help="how long everything must stay well after a remediation")
    given = parser.parse_args()

    async def work() -> int:
        labs = given.labs or (PLACES if given.gate else LAB_KINDS)
        names = {lab: chosen(lab, given.only, gate=given.gate) for lab in labs}
        return await scenarios(given.directory, names, given.stacks, given.sustain_seconds)

    return run_until_done(work())


if __name__ == "__main__":
    sys.exit(main())
