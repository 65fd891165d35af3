"""A whole project of Google Cloud: 500 instances found by their lists, and each probed by the API, over TLS against the simulator.

As `python -m tests.benchmarks.cloud DIR REPEATS` the measuring process itself: Google's libraries learn from the environment where to go.
"""

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from blocks.gcp import GcpProject
from blocks.gcp_section import Discover
from blocks.schema import Inventory, Kind, Resource
from compose.google_cloud.description import load_cloud
from compose.google_cloud.world import ComputeDescribed, RedisDescribed, SqlDescribed, World
from tasks.catalog import load_catalog
from tasks.connecting import open_client
from tasks.core.models import Reading
from tasks.google_clients import GoogleClients
from tests.google_cloud_world import project_playing

MACHINES, DATABASES, CACHES = 400, 50, 50
ZONES = ("europe-west4-a", "europe-west4-b", "us-central1-a")
REGIONS = ("europe-west4", "us-central1")
WORLD = World(
    compute=tuple(ComputeDescribed(name=f"web-{number}", zone=ZONES[number % len(ZONES)], plane=False) for number in range(MACHINES)),
    sql=tuple(SqlDescribed(name=f"orders-{number}", region=REGIONS[number % 2], plane=False) for number in range(DATABASES)),
    redis=tuple(RedisDescribed(name=f"pages-{number}", region=REGIONS[number % 2], plane=False) for number in range(CACHES)),
)
DECLARED = Inventory(name="bench", resources=(Resource(name="page", kind=Kind.HTTP, address="http://127.0.0.1/"),))


async def cloud(directory: Path, repeats: int) -> dict[str, Any]:
    """Seconds for each part, the median of so many rounds in one process; the first round's are told apart."""
    with project_playing(WORLD, directory / "google", directory / "authority") as project:
        environment = {**_clean_environment(), **project.description.environment()}
        words = ("-m", "tests.benchmarks.cloud", str(project.directory), str(repeats))
        process = await asyncio.create_subprocess_exec(sys.executable, *words, env=environment, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"tests.benchmarks.cloud ended with {process.returncode}")
        violations = len(project.admin.violations())
    return {**json.loads(output), "violations": violations}


def _clean_environment() -> dict[str, str]:
    return dict(psutil.Process().environ())


async def _round(block: GcpProject) -> dict[str, float]:
    """One monitor run's worth: connections anew, discovery, and a probe of everything found."""
    google = GoogleClients(DECLARED, {}, block)
    started = time.monotonic()
    await google.open()
    opened = time.monotonic()
    inventory = await google.discovered()
    found = [resource for resource in inventory.resources if resource.cloud.location is not None]
    discovered = time.monotonic()
    probes = load_catalog().probes
    readings = await asyncio.gather(*(probes[one.kind].measure(open_client(one, {}, google), one) for one in found))
    probed = time.monotonic()
    await google.close()
    assert len(found) == MACHINES + DATABASES + CACHES
    assert all(isinstance(reading, Reading) and reading.values["state"] in {"RUNNING", "RUNNABLE", "READY"} for reading in readings)
    return {
        "load_seconds": opened - started,
        "discover_seconds": discovered - opened,
        "probe_seconds": probed - discovered,
        "seconds": probed - opened,
    }


async def _measured(directory: Path, repeats: int) -> dict[str, Any]:
    description = load_cloud(directory)
    key = description.key_paths["evenkeel"].read_text(encoding="utf-8")
    block = GcpProject.model_validate({"project": description.project, "service_account": key, "discover": Discover()})
    rounds = [await _round(block) for _ in range(repeats)]
    return {
        "instances": MACHINES + DATABASES + CACHES,
        "first": {name: round(value, 3) for name, value in rounds[0].items()},
        **{f"median_{name}": round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]},
        "max_seconds": round(max(one["seconds"] for one in rounds), 3),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measured(Path(sys.argv[1]), int(sys.argv[2])))))
