"""`make bench-scale`: sweeps of 1,000 and 10,000 resources, growth of the databases, and many incidents at once; build/bench-scale.*"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from compose.cli import run_until_done
from compose.lab import running_lab
from compose.progress import console, doing, say
from tests.benchmarks.scale import report as reporting
from tests.benchmarks.scale.growth import growth
from tests.benchmarks.scale.incidents import incidents
from tests.benchmarks.scale.place import Kind, Place, running_place
from tests.benchmarks.scale.sweeps import SWEEPS, swept
from tests.benchmarks.scale.world import CACHES, many, running_caches

REPORT = Path("build")
PARTS = ("sweeps", "incidents", "growth")
SWEPT_MEBIBYTES = 64


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    swept: dict[Kind, tuple[tuple[int, int, float], ...]]
    """Database -> resources, monitors, seconds from sweep to sweep."""
    incidents: dict[Kind, tuple[int, ...]]
    monitors: int
    """Those that meet incidents."""
    watched: int
    """Resources whose databases' growth is measured."""
    sweeps: int = SWEEPS
    caches: int = CACHES


WHOLE = Extent(
    swept={
        "PostgreSQL": ((1000, 1, 5), (1000, 2, 5), (1000, 4, 5), (10_000, 1, 15), (10_000, 2, 15), (10_000, 4, 15)),
        "SQLite": ((1000, 1, 5), (1000, 2, 5), (1000, 4, 5), (10_000, 4, 15)),
    },
    incidents={"PostgreSQL": (10, 50), "SQLite": (10, 50)},
    monitors=2,
    watched=1000,
)
SAMPLE = Extent(swept={"PostgreSQL": ((200, 2, 4),)}, incidents={"PostgreSQL": (3,)}, monitors=2, watched=0, sweeps=3, caches=3)


async def bench(extent: Extent, parts: Sequence[str], to: Path) -> int:
    """Measure, print and write; 0 where nothing went wrong and every goal is met."""
    found: dict[str, Any] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="evenkeel-scale-") as temporary:
        directory = Path(temporary)
        async with AsyncExitStack() as cleanup:
            kinds: list[Kind] = [*extent.swept]
            places = {kind: await cleanup.enter_async_context(running_place(directory / kind.lower(), kind)) for kind in kinds}
            if "sweeps" in parts or "growth" in parts:
                await _healthy(extent, parts, places, directory, found)
            if "incidents" in parts:
                for kind, place in places.items():
                    for count in extent.incidents[kind]:
                        found["incidents"].append(await incidents(place, directory / f"{kind}-{count}", count, extent.monitors))
    found["problems"] = [
        f"{part}, {row['database']}: {problem}" for part in PARTS for row in found[part] for problem in row.get("problems", ())
    ]
    found["machine"] = f"{os.cpu_count()} CPUs, {psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    found["command"] = "make bench-scale" if extent is WHOLE else "python -m tests.benchmarks.scale --sample"
    return _write(found, to)


async def _healthy(extent: Extent, parts: Sequence[str], places: dict[Kind, Place], directory: Path, found: dict[str, Any]) -> None:
    """What is measured of inventories in which nothing is wrong."""
    async with AsyncExitStack() as cleanup:
        with doing("start the servers that are watched"):
            lab = await cleanup.enter_async_context(running_lab(directory / "lab", ["database", "web"]))
            caches = await cleanup.enter_async_context(running_caches(directory / "caches", extent.caches, SWEPT_MEBIBYTES))
        for kind, place in places.items():
            swept_counts = {count for count, _, _ in extent.swept[kind]} if "sweeps" in parts else set[int]()
            for count in sorted(swept_counts | ({extent.watched} - {0} if "growth" in parts else set())):
                with doing(f"{kind}: register {count} resources"):
                    await place.register(many(count, lab, caches, place.records_url))
        if "sweeps" in parts:
            for kind, place in places.items():
                for count, monitors, every_seconds in extent.swept[kind]:
                    found["sweeps"].append(await swept(place, f"scale-{count}", monitors, every_seconds, extent.sweeps))
        if "growth" in parts and extent.watched:
            grown = await asyncio.gather(*(growth(place, f"scale-{extent.watched}") for place in places.values()))
            found["growth"] += grown


def _write(found: dict[str, Any], to: Path) -> int:
    to.mkdir(parents=True, exist_ok=True)
    text = reporting.markdown(found)
    (to / "bench-scale.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (to / "bench-scale.md").write_text(text, encoding="utf-8")
    reporting.draw(found, to / "bench-scale.png")
    console.print(text, markup=False)
    say(f"written to {to}/bench-scale.json, .md and .png")
    return 1 if found["problems"] or not all(is_met for _, is_met in reporting.goals(found)) else 0


def main() -> int:
    """Entry point of `python -m tests.benchmarks.scale`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a few resources and incidents only, on PostgreSQL")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, help="just these parts")
    parser.add_argument("--to", type=Path, default=REPORT, help="directory of the reports")
    arguments = parser.parse_args()
    return run_until_done(bench(SAMPLE if arguments.sample else WHOLE, arguments.only, arguments.to))


if __name__ == "__main__":
    sys.exit(main())
