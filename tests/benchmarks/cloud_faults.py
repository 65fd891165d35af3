"""`make bench-gcp`: the original's four faults of Google Cloud through the whole stack, several times each; build/bench-gcp.json."""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from compose.cli import run_until_done
from compose.cloud_inventory import NAME
from compose.demo import try_scenario
from compose.google_cloud.admin_client import Admin
from compose.google_cloud.world import default_world
from compose.progress import console, doing, say
from compose.stack import cloud_stack
from tests.benchmarks.__main__ import summary

FAULTS = ("gcp_redis_memory_pressure", "gcp_compute_memory_pressure", "gcp_compute_cpu_stress", "gcp_sql_connection_overload")
REPORT = Path("build/bench-gcp.json")


async def bench(repeats: int, names: Sequence[str]) -> int:
    """Try each so often; 0 where every trial ended as expected and no exchange violated Google's documents."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as directory:
        async with cloud_stack(Path(directory), default_world()) as running:
            for name in names:
                with doing(f"{name}, {repeats} times"):
                    rows = [await try_scenario(running, name, inventory=NAME) for _ in range(repeats)]
                detected = [row["detected_seconds"] for row in rows if row["detected_seconds"] is not None]
                found[name] = {
                    **summary([row["healthy_seconds"] for row in rows]),
                    "median_detected_seconds": round(statistics.median(detected), 2) if detected else None,
                    "problems": [problem for row in rows for problem in row["problems"]],
                }
            admin = Admin(running.lab.cloud)
            violations, mutations = admin.violations(), [one.method for one in admin.mutations()]
            admin.close()
    table = Table(title=f"Google Cloud, simulated: {repeats} trials each, seconds from injection")
    for title in ("fault", "healed", "detected", "healthy, median", "least", "most"):
        table.add_column(title)
    for name, one in found.items():
        figures = (one.get(field) for field in ("median_detected_seconds", "median_seconds", "min_seconds", "max_seconds"))
        table.add_row(name, f"{one['healed']} of {one['n']}", *(str(figure) for figure in figures))
    console.print(table)
    document = {"repeats": repeats, "faults": found, "violations": len(violations), "mutations": mutations}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    say(f"{len(violations)} violations of Google's documents; the same as JSON: {REPORT}")
    return 1 if violations or any(one["problems"] for one in found.values()) else 0


def main() -> int:
    """Entry point of `python -m tests.benchmarks.cloud_faults`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=FAULTS, help="just these faults")
    arguments = parser.parse_args()
    return run_until_done(bench(arguments.repeats, arguments.only))


if __name__ == "__main__":
    sys.exit(main())
