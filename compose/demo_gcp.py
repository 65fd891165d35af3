"""`make demo-gcp`: heal two faults in a simulated Google Cloud project, on real servers, and print the table of `make demo`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compose.cli import run_until_done
from compose.cloud_inventory import NAME
from compose.demo import report, try_scenario
from compose.google_cloud.world import World, default_world, realistic_world
from compose.progress import doing, say
from compose.stack import cloud_stack

OPERATIONS = {
    "gcp_redis_memory_pressure": "redis.projects.locations.instances.patch",
    "gcp_compute_memory_pressure": "compute.instances.reset",
}
"""Scenario -> the longest operation that heals it."""
REPORT = Path("build/demo-gcp.json")
GOAL_SECONDS = 20.0
BESIDES_OPERATION_SECONDS = 10.0
"""What healing may take longer than the cloud's own operation, where that takes its real time."""
TRIAL_SECONDS = 300.0


async def demo_gcp(directory: Path, world: World, only: Sequence[str]) -> int:
    """Run them, print the table, write the report; 0 if all passed."""
    operation = {name: world.delays.of(method) for name, method in OPERATIONS.items() if name in only}
    goals = {name: max(GOAL_SECONDS, seconds + BESIDES_OPERATION_SECONDS) for name, seconds in operation.items()}
    rows = []
    async with cloud_stack(directory, world) as running:
        say(f"everything can be looked at while it runs: {running.plane.ui_url}")
        for name, goal in goals.items():
            with doing(name):
                # Once to heal, and once to bring it back to its size.
                seconds = TRIAL_SECONDS + 2 * operation[name]
                rows.append(await try_scenario(running, name, inventory=NAME, seconds=seconds, timeout_seconds=60 + goal))
    return report(rows, goals, REPORT)


def main() -> int:
    """Entry point of `python -m compose.demo_gcp`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".evenkeel"), help="where lab, server and records are kept")
    parser.add_argument("--realistic", action="store_true", help="operations take 30 to 300 s, as the real ones do")
    parser.add_argument("--only", nargs="+", choices=tuple(OPERATIONS), default=tuple(OPERATIONS), help="just these scenarios")
    given = parser.parse_args()
    world = realistic_world() if given.realistic else default_world()
    return run_until_done(demo_gcp(given.directory, world, given.only))


if __name__ == "__main__":
    sys.exit(main())
