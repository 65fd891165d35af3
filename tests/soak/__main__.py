"""`make soak`: the whole stack for an hour with a fault every 20 seconds; every one must end right, and nothing may grow or be left."""

import argparse
import asyncio
import contextlib
import shutil
import sys
from pathlib import Path

from prefect.logging.loggers import disable_run_logger

from compose.cli import run_until_done
from compose.control_plane import ControlPlane
from compose.description import LabError
from compose.lab import stop_lab
from compose.progress import console, say
from compose.stack import stack
from tests.soak.ageing import ages_of
from tests.soak.course import Soak
from tests.soak.processes import Family
from tests.soak.report import Findings, findings_of, write
from tests.soak.samples import Sampler

REPORT = Path("build/soak")
SAMPLE_SECONDS = 30.0
FEWEST_SAMPLES = 20
LONGEST_RUN_SECONDS = 360.0
"""A run of the watcher: what belongs to it stays as long."""
GONE_SECONDS = 20.0


async def soak(directory: Path, minutes: float, seed: int, report: Path) -> int:
    """Run it and write the report, also where it is ended early; 0 if nothing was wrong."""
    ages = ages_of(minutes)
    findings: Findings | None = None
    family: Family | None = None
    left: list[str] = []
    await _cleared(directory)
    try:
        async with stack(directory, server_settings=ages.server_settings) as running:
            say(f"can be looked at while it runs: {running.plane.ui_url}")
            family = Family(running.lab, running.prefect_database)
            overdue_seconds = ages.kept_seconds + 3 * ages.every_seconds + LONGEST_RUN_SECONDS + 120
            sampler = Sampler(running, family, overdue_seconds)
            course = Soak(running, minutes, seed, ages, sampler, min(SAMPLE_SECONDS, minutes * 60 / FEWEST_SAMPLES))
            try:
                # What the flow `scenario` logs to its run is nobody's here.
                with running.client(), disable_run_logger():
                    await course.run()
            finally:
                findings = findings_of(course)
                write(findings, report)
        left = await _left(family)
    finally:
        if findings is not None:
            _tell(findings, left, report)
    return 1 if findings.problems or left else 0


async def _cleared(directory: Path) -> None:
    """End what a soak that was killed left running there, and remove its data: each begins with empty tables."""
    await ControlPlane(directory, 0, "").end_survivors()
    for part in ("lab", "prefect-database"):
        with contextlib.suppress(LabError):  # there is none
            await asyncio.to_thread(stop_lab, directory / part)
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _left(family: Family) -> list[str]:
    """What of all that was started still runs a while after the end."""
    for _ in range(round(GONE_SECONDS)):
        left = await asyncio.to_thread(family.left)
        if not left:
            break
        await asyncio.sleep(1)
    return [f"still runs after the end: {one}" for one in left]


def _tell(findings: Findings, left: list[str], report: Path) -> None:
    if left:
        with (report / "report.md").open("a", encoding="utf-8") as file:
            file.writelines(f"- {one}\n" for one in left)
    for problem in (*findings.problems, *left):
        console.print(problem, style="red", markup=False)
    right = sum(one.right for one in findings.scenarios)
    for note in findings.notes:
        say(note)
    say(f"{right} of {len(findings.trials)} faults ended right, {len(findings.problems) + len(left)} problem(s); {report / 'report.md'}")


def main() -> int:
    """Entry point of `python -m tests.soak`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel/soak"), help="where lab, server and records are kept")
    parser.add_argument("--minutes", type=float, default=60, help="how long faults are brought about")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the faults")
    parser.add_argument("--report", type=Path, default=REPORT, help="directory for report.md, soak.json and soak.png")
    given = parser.parse_args()
    if given.minutes <= 0:
        parser.error("--minutes: give a number above 0")
    return run_until_done(soak(given.directory, given.minutes, given.seed, given.report))


if __name__ == "__main__":
    sys.exit(main())
