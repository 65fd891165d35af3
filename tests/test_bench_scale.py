"""`make bench-scale` still runs: a small part of it, whose figures are held against what can't be otherwise."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 280


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
async def test_a_small_part_of_the_benchmark_finds_all_well_and_each_incident_healed_once(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.benchmarks.scale", "--sample", "--to", str(tmp_path))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output.decode()
    report = json.loads((tmp_path / "bench-scale.json").read_text(encoding="utf-8"))
    assert report["problems"] == []
    (sweep,), (incident,) = report["sweeps"], report["incidents"]
    assert sweep["resources"] == 200
    assert min(sweep["watched_by_each"]) > 60, "divided, and about evenly"
    assert sweep["cpu_seconds_a_sweep"]["monitors"] > 0
    assert incident["incidents"] == 3
    assert 0 < incident["detected_seconds"]["most"] < incident["healthy_seconds"]["most"] < incident["all_closed_seconds"]
    assert "| PostgreSQL | 200 | 2 |" in (tmp_path / "bench-scale.md").read_text(encoding="utf-8")
    assert (tmp_path / "bench-scale.png").stat().st_size > 10_000
