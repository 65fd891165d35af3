"""`make bench`: everything side by side in one run, printed and written to build/bench.json."""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from compose.cli import run_until_done
from compose.demo import try_scenario
from compose.description import LabDescription
from compose.lab import running_lab
from compose.progress import console, doing, say
from compose.stack import Stack, stack
from tests.benchmarks import containers, sweeps
from tests.benchmarks.cloud import cloud
from tests.benchmarks.hard_coded import FAULTS, floor, until_healed
from tests.benchmarks.monit import installed, monit
from tests.benchmarks.planning import planning

REPORT = Path("build/bench.json")
COUNTS = (3, 100, 1000)
PLANS = 20
PARTS = ("faults", "containers", "sweeps", "planning", "cloud")


def summary(values: list[float | None]) -> dict[str, Any]:
    """Median, least and most of the trials that healed, and how many did."""
    healed = [value for value in values if value is not None]
    if not healed:
        return {"n": len(values), "healed": 0}
    return {
        "n": len(values),
        "healed": len(healed),
        "median_seconds": round(statistics.median(healed), 2),
        "min_seconds": round(min(healed), 2),
        "max_seconds": round(max(healed), 2),
    }


async def with_evenkeel(running: Stack, repeats: int) -> dict[str, Any]:
    """Each fault through the whole stack."""
    results: dict[str, Any] = {}
    for name in FAULTS:
        with doing(f"evenkeel: {name}, {repeats} times"):
            rows = [await try_scenario(running, name) for _ in range(repeats)]
        problems = [problem for row in rows for problem in row["problems"]]
        results[name] = {
            **summary([row["healthy_seconds"] for row in rows]),
            "median_detected_seconds": round(statistics.median(row["detected_seconds"] for row in rows), 2),
            "median_detection_to_healthy_seconds": round(
                statistics.median(row["healthy_seconds"] - row["detected_seconds"] for row in rows), 2
            ),
            "requests_failed": sum(row["requests_failed"] for row in rows),
            "problems": problems,
        }
    return results


async def many_resources(running: Stack, directory: Path) -> list[dict[str, Any]]:
    """A healthy cycle for few and for many resources, each in a process of its own."""
    found = []
    for count in COUNTS:
        with doing(f"sweep {count} resources"):
            path = directory / f"bench-{count}.yaml"
            sweeps.write(running.lab, count, path)
            await running.plane.run("-m", "blocks.register", str(path), "--env-file", str(path.with_suffix(".env")))
            output = await running.plane.run(
                "-m", "tests.benchmarks.sweeps", str(count), str(running.lab.directory), str(running.prefect_database.directory)
            )
            found.append(json.loads(output.strip().splitlines()[-1]))
    return found


async def killed_containers(running: Stack, repeats: int) -> dict[str, Any] | str:
    """What becomes of a killed container by who brings it back, or why that is not measured."""
    why = containers.why_not()
    if why:
        return why
    with doing(f"kill -9 of a container's process, {repeats} times each"):
        found = await containers.containers(running, repeats)
    return {name: {stage: _in_order(values) for stage, values in asdict(trials).items() if values} for name, trials in found.items()}


def _in_order(values: list[float | None]) -> dict[str, Any]:
    # The first one is a watcher's first event, which takes longer than those that follow.
    return {**summary(values), "in_order_seconds": [None if value is None else round(value, 3) for value in values]}


async def bench(repeats: int, parts: Sequence[str]) -> int:
    """Measure these parts of it, side by side, and report them."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as temporary:
        directory = Path(temporary)
        if {"faults", "containers", "sweeps"} & set(parts):
            async with stack(directory / "stack") as running:
                if "faults" in parts:
                    report["evenkeel"] = await with_evenkeel(running, repeats)
                if "containers" in parts:
                    report["containers"] = await killed_containers(running, repeats)
                if "sweeps" in parts:
                    report["sweeps"] = await many_resources(running, directory)
        if {"faults", "planning"} & set(parts):
            async with running_lab(directory / "lab") as lab:
                if "faults" in parts:
                    report |= await without_evenkeel(lab, directory, repeats)
                if "planning" in parts:
                    with doing(f"planning with a scripted model, {PLANS} times each"):
                        report["planning"] = await planning(lab, directory, PLANS)
        if "cloud" in parts:
            with doing(f"a project of Google Cloud, {repeats} rounds"):
                report["cloud"] = await cloud(directory, repeats)
    show(report)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"written to {REPORT}")
    return 1 if any(one["problems"] for one in report.get("evenkeel", {}).values()) or _container_left_down(report) else 0


async def without_evenkeel(lab: LabDescription, directory: Path, repeats: int) -> dict[str, Any]:
    """The same faults met by hard-coded checks, and by monit where it is installed."""
    report: dict[str, Any] = {"floor": {}, "monit": {} if installed() else "not installed"}
    for name in FAULTS:
        with doing(f"hard-coded check every 2 s: {name}, {repeats} times"):
            report["floor"][name] = summary([await floor(lab, name) for _ in range(repeats)])
    for name in FAULTS if installed() else ():
        with doing(f"monit every 5 s: {name}, {repeats} times"):
            async with monit(lab, name, directory / f"monit-{name}"):
                report["monit"][name] = summary([await until_healed(lab, name) for _ in range(repeats)])
    return report


def _container_left_down(report: dict[str, Any]) -> bool:
    found = report.get("containers", {})
    return not isinstance(found, str) and any(one["healed"] < one["n"] for stages in found.values() for one in stages.values())


def show(report: dict[str, Any]) -> None:
    """The report as tables, one a part."""
    if "evenkeel" in report:
        console.print(_faults(report))
    if "containers" in report:
        console.print(_containers(report["containers"]))
    if "sweeps" in report:
        console.print(_sweeps(report["sweeps"]))
    if "planning" in report:
        console.print(_planning(report["planning"]))
    if "cloud" in report:
        console.print(_cloud(report["cloud"]))


def _faults(report: dict[str, Any]) -> Table:
    table = Table(title="Seconds from injection to healthy: median (least to most) of the trials")
    for title in ("fault", "evenkeel", "detection to healthy", "floor", "times the floor", "monit, 5 s"):
        table.add_column(title)
    for name, own in report["evenkeel"].items():
        least = report["floor"][name]
        other = report["monit"][name] if isinstance(report["monit"], dict) else {}
        ratio = f"{own['median_seconds'] / least['median_seconds']:.1f}" if own["healed"] and least["healed"] else "-"
        table.add_row(name, _span(own), f"{own['median_detection_to_healthy_seconds']:.2f}", _span(least), ratio, _span(other))
    return table


def _containers(found: dict[str, Any] | str) -> Table | str:
    if isinstance(found, str):
        return f"kill -9 of a container's process: not measured: {found}"
    table = Table(title="Seconds from kill -9 of a container's process: median (least to most)")
    for title in ("brought back by", "detected", "serves again", "and found healthy for 2 s"):
        table.add_column(title)
    for name, stages in found.items():
        table.add_row(name, *(_span(stages[stage]) if stage in stages else "-" for stage in ("detected", "healthy", "validated")))
    return table


def _sweeps(found: list[dict[str, Any]]) -> Table:
    table = Table(title="One healthy monitor cycle")
    for title in ("resources", "seconds", "peak memory, MiB", "rows added by 5 sweeps"):
        table.add_column(title)
    for one in found:
        added = ", ".join(f"{name} {count}" for name, count in one["rows_added"].items() if count)
        table.add_row(str(one["resources"]), f"{one['seconds_per_sweep']:.3f}", str(one["peak_memory_mib"]), added)
    return table


def _planning(found: dict[str, Any]) -> Table:
    table = Table(title="Planning with Gemini, without the model's own time")
    for title in ("fault", "milliseconds (most)", "requests", "input tokens", "output tokens"):
        table.add_column(title)
    for name, one in found["incidents"].items():
        own = f"{1000 * one['median_own_seconds']:.0f} ({1000 * one['max_own_seconds']:.0f})"
        table.add_row(name, own, *(str(one[field]) for field in ("requests", "input_tokens", "output_tokens")))
    return table


def _cloud(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['instances']} instances of a simulated project of Google Cloud, in seconds")
    for title in ("", "found", "probed by the API", "together"):
        table.add_column(title)
    for name, one, prefix in (("first round", found["first"], ""), ("median", found, "median_")):
        table.add_row(name, *(f"{one[f'{prefix}{part}seconds']:.2f}" for part in ("discover_", "probe_", "")))
    return table


def _span(figures: dict[str, Any]) -> str:
    if not figures.get("healed"):
        return "never" if figures else "not installed"
    share = "" if figures["healed"] == figures["n"] else f", {figures['healed']} of {figures['n']}"
    return f"{figures['median_seconds']} ({figures['min_seconds']} to {figures['max_seconds']}{share})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="just these parts")
    arguments = parser.parse_args()
    sys.exit(run_until_done(bench(arguments.repeats, arguments.only)))
