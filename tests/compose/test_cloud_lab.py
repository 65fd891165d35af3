"""The cloud lab: it comes up with an inventory that can be registered, and nothing of it outlives it."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from blocks.inventory_file import parse_inventory
from blocks.register import read_environment_file
from blocks.schema import Kind, Role
from compose.cloud_lab import running_cloud_lab

PATIENCE_SECONDS = 60.0

PROJECT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true within {PATIENCE_SECONDS:g} s"
        time.sleep(0.05)


def simulator_of(directory: Path) -> psutil.Process:
    marks = ("compose.google_cloud", str(directory))
    return next(one for one in psutil.process_iter(["cmdline"]) if all(mark in (one.info["cmdline"] or []) for mark in marks))


def of_the_lab(directory: Path) -> set[str]:
    """The names of all processes with their output below the directory: also of those inside a machine."""
    found = set()
    for process in psutil.process_iter(["name"]):
        try:
            if str(Path(f"/proc/{process.pid}/fd/2").readlink()).startswith(str(directory)):
                found.add(process.info["name"])
        except OSError:
            continue
    return found


async def test_it_is_ready_for_registration_and_leaves_nothing_even_when_the_simulator_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "cloud"
    async with running_cloud_lab(directory) as lab:
        variables = read_environment_file(lab.environment_path.read_text(encoding="utf-8"))
        assert lab.environment_path.stat().st_mode & 0o777 == 0o600
        inventory = parse_inventory(lab.inventory_path.read_text(encoding="utf-8"), variables).inventory
        assert (inventory.name, inventory.lab) == ("cloud", True)
        assert {one.kind for one in inventory.resources} == {Kind.COMPUTE_ENGINE, Kind.CLOUD_SQL, Kind.MEMORYSTORE}
        assert {one.role for one in inventory.resources if one.kind is Kind.MEMORYSTORE} == {Role.CACHE, Role.STORE}
        text = lab.inventory_path.read_text(encoding="utf-8")
        assert not [name for name, value in variables.items() if value in text]
        assert {"postgres", "valkey-server", "unshare"} <= of_the_lab(directory)
        simulator_of(directory).send_signal(signal.SIGKILL)
        # What is in a machine ends with the simulator, whoever is there to see to the rest.
        await asyncio.to_thread(wait_until, lambda: "unshare" not in of_the_lab(directory))
    assert of_the_lab(directory) == set()
    assert not (directory / "planes").exists()


@pytest.mark.slow
def test_a_second_one_in_the_same_directory_is_refused_and_one_ends_with_its_starter(tmp_path: Path) -> None:
    directory = tmp_path / "cloud"
    command = [sys.executable, "-m", "compose.cloud_lab", "--directory", str(directory)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            assert "inventory" in starter.stdout.readline()
            second = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
            assert (second.returncode, "a lab is up here already" in second.stdout) == (2, True)
            assert of_the_lab(directory)
        finally:
            starter.kill()
    wait_until(lambda: not of_the_lab(directory))
