"""A monitor run in a process of its own: `python -m tests.benchmarks.scale.watcher INVENTORY SHARD EVERY_SECONDS [--in-step]`.

It is the product's flow, unchanged, and tells in lines of JSON on its output when a sweep begins and ends. In step, each sweep waits for
a line on its input, so that all monitors of an inventory sweep at the same moment. It ends when the records say that another took over.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import flows.monitor
from tasks.probing import Known, Sweep, sweep

LONGEST_SECONDS = 900.0


def tell(**event: Any) -> None:
    """One event for whoever started this."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def watch(inventory: str, shard: str, every_seconds: float, *, in_step: bool) -> None:
    """Run the monitor until it is relieved."""

    async def measured(number: int, known: Known, only: Collection[str] = ()) -> Sweep:
        tell(event="begins", sweep=number)
        if in_step and not await asyncio.to_thread(sys.stdin.readline):
            raise EOFError("whoever gives the step is gone")
        started, used = time.monotonic(), time.process_time()
        found = await sweep(number, known, only)
        health = Counter(str(one.health) for one in found.observations)
        unwell = [f"{one.resource}: {one.summary}" for one in found.observations if one.health != "HEALTHY"][:5]
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - used
        tell(event="swept", sweep=number, seconds=seconds, cpu_seconds=cpu_seconds, health=health, unwell=unwell)
        return found

    setattr(flows.monitor, "sweep", measured)  # noqa: B010 - its name in that module
    state = await flows.monitor.monitor(inventory, every_seconds, LONGEST_SECONDS, shard=shard, return_state=True)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tell(event="ended", message=state.message, is_completed=state.is_completed(), peak_mib=peak_mib)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inventory")
    parser.add_argument("shard")
    parser.add_argument("every_seconds", type=float)
    parser.add_argument("--in-step", action="store_true")
    given = parser.parse_args()
    asyncio.run(watch(given.inventory, given.shard, given.every_seconds, in_step=given.in_step))
