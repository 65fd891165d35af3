"""`make bench`: everything side by side in one run, printed and written to build/bench.json."""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from compose.cli import run_until_done
from compose.demo import try_scenario
from compose.lab import running_lab
from compose.progress import console, doing, say
from compose.stack import Stack, stack
from tests.benchmarks import sweeps
from tests.benchmarks.hard_coded import FAULTS, floor, until_healed
from tests.benchmarks.monit import installed, monit
from tests.benchmarks.planning import planning

REPORT = Path("build/bench.json")
COUNTS = (3, 100, 1000)
PLANS = 20


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


async def bench(repeats: int) -> int:
    """Measure everything and report it."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as temporary:
        directory = Path(temporary)
        async with stack(directory / "stack") as running:
            report["evenkeel"] = await with_evenkeel(running, repeats)
            report["sweeps"] = await many_resources(running, directory)
        async with running_lab(directory / "lab") as lab:
            report["floor"] = {}
            for name in FAULTS:
                with doing(f"hard-coded check every 2 s: {name}, {repeats} times"):
                    report["floor"][name] = summary([await floor(lab, name) for _ in range(repeats)])
            with doing(f"planning with a scripted model, {PLANS} times each"):
                report["planning"] = await planning(lab, directory, PLANS)
            report["monit"] = {} if installed() else "not installed"
            for name in FAULTS if installed() else ():
                with doing(f"monit every 5 s: {name}, {repeats} times"):
                    async with monit(lab, name, directory / f"monit-{name}"):
                        report["monit"][name] = summary([await until_healed(lab, name) for _ in range(repeats)])
    show(report)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"written to {REPORT}")
    return 1 if any(one["problems"] for one in report["evenkeel"].values()) else 0


def show(report: dict[str, Any]) -> None:
    """The report as tables."""
    table = Table(title="Seconds from injection to healthy: median (least to most) of the trials")
    for title in ("fault", "evenkeel", "detection to healthy", "floor", "times the floor", "monit, 5 s"):
        table.add_column(title)
    for name, own in report["evenkeel"].items():
        least = report["floor"][name]
        other = report["monit"][name] if isinstance(report["monit"], dict) else {}
        ratio = f"{own['median_seconds'] / least['median_seconds']:.1f}" if own["healed"] and least["healed"] else "-"
        table.add_row(name, _span(own), f"{own['median_detection_to_healthy_seconds']:.2f}", _span(least), ratio, _span(other))
    console.print(table)
    table = Table(title="One healthy monitor cycle")
    for title in ("resources", "seconds", "peak memory, MiB", "rows added by 5 sweeps"):
        table.add_column(title)
    for one in report["sweeps"]:
        added = ", ".join(f"{name} {count}" for name, count in one["rows_added"].items() if count)
        table.add_row(str(one["resources"]), f"{one['seconds_per_sweep']:.3f}", str(one["peak_memory_mib"]), added)
    console.print(table)
    table = Table(title="Planning with Gemini, without the model's own time")
    for title in ("fault", "milliseconds (most)", "requests", "input tokens", "output tokens"):
        table.add_column(title)
    for name, one in report["planning"]["incidents"].items():
        own = f"{1000 * one['median_own_seconds']:.0f} ({1000 * one['max_own_seconds']:.0f})"
        table.add_row(name, own, *(str(one[field]) for field in ("requests", "input_tokens", "output_tokens")))
    console.print(table)


def _span(figures: dict[str, Any]) -> str:
    if not figures.get("healed"):
        return "never" if figures else "not installed"
    share = "" if figures["healed"] == figures["n"] else f", {figures['healed']} of {figures['n']}"
    return f"{figures['median_seconds']} ({figures['min_seconds']} to {figures['max_seconds']}{share})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    sys.exit(run_until_done(bench(parser.parse_args().repeats)))
