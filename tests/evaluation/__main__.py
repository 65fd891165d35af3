"""`make evaluate`: try a part of the catalogue with several planners in labs side by side, and write report and plots.

What was killed half-way goes on where it was; what was finished begins anew.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment

from blocks.gemini_section import BASE_URLS, KEY
from compose.cli import run_until_done
from compose.control_plane import ControlPlane
from compose.description import LabError
from compose.gemini_scripts import SCRIPTS
from compose.gemini_server import GeminiServer
from compose.lab import stop_lab
from compose.progress import console, say
from compose.stack import LAB_KINDS, LabKind, Stack, stack
from tasks.catalog import load_catalog
from tasks.charge import PLANNERS
from tasks.core.evaluation import Case, Trial, cases_of, part_of
from tasks.core.evaluation_report import percent, seconds
from tasks.core.evaluation_summary import Report, Settings, report_of
from tasks.evaluating import DEFAULT_SCENARIOS, Results, conditions_of
from tasks.reporting import write_report

INVENTORY = "lab"
ROUNDS = 3
"""Where a lab can't be brought back to its steady state, what is left goes on in a new one."""
START_SECONDS = 120.0
CASE_SECONDS = 180.0
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Wanted:
    """An evaluation, and the labs that are used for it."""

    settings: Settings
    results: Results
    directory: Path
    lab: LabKind
    stacks: int

    @property
    def conditions(self) -> str:
        """What has to be the same for trials to be comparable."""
        return conditions_of(self.settings, INVENTORY)

    @property
    def cases(self) -> list[Case]:
        """Every case."""
        settings = self.settings
        return cases_of(settings.scenarios, settings.planners, settings.repeats, swinging=settings.swinging)

    def trials(self) -> list[Trial]:
        """Those that were made so far."""
        found = self.results.trials(self.conditions)
        return [found[case.key] for case in self.cases if case.key in found]

    def missing(self, part: int) -> list[Case]:
        """What is left to one of the labs."""
        found = self.results.trials(self.conditions)
        return [case for case in part_of(self.cases, part, self.stacks) if case.key not in found]


async def evaluate(wanted: Wanted) -> int:
    """Try every case, and write the report; 0 if all were tried, however they ended."""
    began = time.monotonic()
    before = len(wanted.trials())
    say(f"{len(wanted.cases)} cases under: {wanted.conditions}" + (f"; {before} are done already" if before else ""))
    for number in range(1, ROUNDS + 1):
        if len(wanted.trials()) == len(wanted.cases):
            break
        if number > 1:
            say("some cases were not tried: once more in new labs")
        await _round(wanted)
    report = report_of(wanted.settings, wanted.trials())
    write_report(report, wanted.results.directory)
    _print(report)
    say(f"{time.monotonic() - began:.0f} s in all; {wanted.results.directory / 'report.md'}")
    if report.missing:
        console.print(f"[red]{report.missing} cases were not tried; run it again to go on[/red]")
        return 1
    wanted.results.finish()
    return 0


async def _round(wanted: Wanted) -> None:
    one_at_a_time = asyncio.Lock()

    async def work(part: int) -> None:
        if not wanted.missing(part):
            return
        try:
            async with _lab(wanted, part, one_at_a_time) as running:
                say(f"lab {part}: can be looked at while it runs: {running.plane.ui_url}")
                await _evaluated(wanted, part, running)
        except LabError as error:
            say(f"lab {part}: {error}")

    async with asyncio.TaskGroup() as group:
        for part in range(1, wanted.stacks + 1):
            group.create_task(work(part))


@asynccontextmanager
async def _lab(wanted: Wanted, part: int, one_at_a_time: asyncio.Lock) -> AsyncIterator[Stack]:
    """A lab with its control plane. Bringing one up takes both cores; those that are up go on meanwhile."""
    await one_at_a_time.acquire()
    is_starting = True
    try:
        directory = (wanted.directory / f"evaluation-{wanted.lab}-{part}").absolute()
        await _cleared(directory, wanted.lab)
        async with stack(directory, lab_kind=wanted.lab, project=f"evenkeel-evaluation-{part}") as running:
            one_at_a_time.release()
            is_starting = False
            yield running
    finally:
        if is_starting:
            one_at_a_time.release()


async def _cleared(directory: Path, lab: LabKind) -> None:
    """End what was left running there by an evaluation that was killed, and remove its servers' data: a fault may be in them."""
    await ControlPlane(directory, 0, "").end_survivors()
    if lab == "containers":
        return  # its own start sees to it
    for part in ("lab", "prefect-database"):
        try:
            await asyncio.to_thread(stop_lab, directory / part)
        except LabError:
            continue  # there is none
        await asyncio.to_thread(shutil.rmtree, directory / part)


async def _evaluated(wanted: Wanted, part: int, running: Stack) -> None:
    """Run the deployment `evaluate/by-hand` for one part, and tell of each trial meanwhile."""
    settings = wanted.settings
    parameters: dict[str, Any] = {
        "scenarios": list(settings.scenarios),
        "planners": list(settings.planners),
        "repeats": settings.repeats,
        "inventory": INVENTORY,
        "directory": str(wanted.results.directory),
        "timeout_seconds": settings.timeout_seconds,
        "sustain_seconds": settings.sustain_seconds,
        "swinging_neighbours": settings.swinging,
        "part": part,
        "parts": wanted.stacks,
        "write": False,
        "command": settings.command,
    }
    left = {case.key for case in wanted.missing(part)}
    deadline = time.monotonic() + START_SECONDS + len(left) * CASE_SECONDS
    with running.client():
        run: FlowRun = await arun_deployment("evaluate/by-hand", parameters=parameters, timeout=0, as_subflow=False)
        async with get_client() as client:
            while time.monotonic() < deadline:
                run = await client.read_flow_run(run.id)
                for trial in wanted.trials():
                    if trial.case.key in left:
                        left.remove(trial.case.key)
                        say(f"lab {part}: {_line(trial)}")
                if run.state is not None and run.state.is_final():
                    break
                await asyncio.sleep(POLL_SECONDS)
    if run.state is None or not run.state.is_completed():
        say(f"lab {part}: ended early: {run.state and run.state.message}")


def _line(trial: Trial) -> str:
    result = trial.result
    told = "as expected" if trial.succeeded else "; ".join(result.problems) or result.message
    return f"{trial.case.key}: {result.outcome}: {told}"[:200] + f" ({trial.seconds:.0f} s)"


def _print(report: Report) -> None:
    for one in report.planners:
        console.print(
            f"{one.planner}: success {percent(one.success_rate)}, recovery {seconds(one.performance.recovery)} s, "
            f"collateral {percent(one.collateral_rate)}, {one.requests_failed} of {one.requests} visitors' requests failed"
        )


def _known(names: Sequence[str]) -> tuple[str, ...]:
    known = load_catalog().scenarios
    for name in names:
        if name not in known:
            raise LabError(f"no scenario {name!r}; known: {', '.join(known)}")
    return tuple(names)


def _command(arguments: list[str]) -> str:
    """What repeats it, wherever it is: without the directories, which `make` gives."""
    places = [number for number, one in enumerate(arguments) if one in {"--directory", "--results"}]
    options = [one for number, one in enumerate(arguments) if number not in places and number - 1 not in places]
    return f'make evaluate EVALUATE_ARGS="{shlex.join(options)}"' if options else "make evaluate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m tests.evaluation`."""
    given_arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where labs, servers and records are kept")
    parser.add_argument("--results", type=Path, default=Path("build/evaluation"), help="where trials, report and plots are written")
    parser.add_argument("--lab", choices=LAB_KINDS, default=LAB_KINDS[0], help="what runs the lab's servers")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="just these scenarios")
    parser.add_argument("--all", action="store_true", help="the whole catalogue, as far as the lab has what it needs")
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=["runbook", "restart"])
    parser.add_argument("--repeats", type=int, default=3, help="how often each scenario is tried with each planner")
    parser.add_argument("--stacks", type=int, default=3, help="how many labs are used side by side")
    parser.add_argument("--timeout-seconds", type=float, default=60, help="how long detection and remediation may take together")
    parser.add_argument("--sustain-seconds", type=float, default=5, help="how long everything must stay well after a remediation")
    parser.add_argument("--well-neighbours", action="store_true", help="let no neighbour swing just under its thresholds")
    parser.add_argument("--scripted-gemini", choices=sorted(SCRIPTS), help="let a local server play Gemini by this script")
    given = parser.parse_args(given_arguments)

    def fits(name: str) -> bool:
        return given.lab == "containers" or "process" in load_catalog().scenarios[name].runtimes

    async def work() -> int:
        if given.repeats < 1 or given.stacks < 1:
            raise LabError("--repeats and --stacks: give a number from 1 on")
        names = _known(given.only) or tuple(filter(fits, load_catalog().scenarios if given.all else DEFAULT_SCENARIOS))
        settings = Settings(
            scenarios=names,
            planners=tuple(given.planners),
            repeats=given.repeats,
            timeout_seconds=given.timeout_seconds,
            sustain_seconds=given.sustain_seconds,
            swinging=not given.well_neighbours,
            command=_command(given_arguments),
            note=f"`gemini` is played by the script {given.scripted_gemini!r} of this project." if given.scripted_gemini else "",
        )
        wanted = Wanted(settings, Results(given.results.absolute()), given.directory, given.lab, given.stacks)
        if not given.scripted_gemini:
            return await evaluate(wanted)
        async with GeminiServer(SCRIPTS[given.scripted_gemini]) as server:
            os.environ |= {KEY: "try-out", BASE_URLS[0]: server.url}  # what the stacks register their inventory with
            return await evaluate(wanted)

    return run_until_done(work())


if __name__ == "__main__":
    sys.exit(main())
