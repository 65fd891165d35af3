"""The cloud lab: a simulated Google Cloud project with real servers behind it, and the inventory that watches it.

`python -m compose.cloud_lab --directory DIR` keeps it up until Ctrl-C.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from compose.cli import run_until_done
from compose.cloud_inventory import write_cloud_inventory
from compose.description import LabDescription, LabError
from compose.google_cloud.description import CloudDescription, load_cloud
from compose.google_cloud.plane_building import clear_planes
from compose.google_cloud.world import World, default_world, realistic_world, save_world
from compose.lab import running_lab
from compose.progress import console
from compose.records import locked

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class CloudLab:
    """A running cloud lab."""

    directory: Path
    world: World
    cloud: CloudDescription

    @property
    def inventory_path(self) -> Path:
        """The inventory of this lab, with `${NAME}` for each secret."""
        return self.directory / "inventory.yaml"

    @property
    def environment_path(self) -> Path:
        """NAME=value lines with the keys and passwords that the inventory refers to."""
        return self.directory / "lab.env"

    def environment(self) -> dict[str, str]:
        """What a process needs so that Google's own client libraries in it reach the simulator."""
        return self.cloud.environment()


@contextlib.asynccontextmanager
async def running_cloud_lab(
    directory: Path, *, world: World | None = None, authority: Path | None = None, beside: LabDescription | None = None
) -> AsyncIterator[CloudLab]:
    """A cloud lab for the length of a block. It ends with the caller, however the caller ends; LabError when it does not come up.

    `world` is played in place of the default one; `authority` is a directory with the ca.crt and ca.key that this process knows already;
    what `beside` runs stands in the same inventory.
    """
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    remedy = f"end it, or give another directory than {directory}"
    with locked(directory, remedy):
        played = world or default_world()
        save_world(directory, played)
    command = ["-m", "compose.google_cloud", "--directory", str(directory), "--lifeline"]
    if authority is not None:
        command += ["--authority", str(authority)]
    log = directory / "simulator.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            # Ctrl-C goes to the whole foreground group; this one is ended after those that use it.
            start_new_session=True,
        )
    try:
        await _ready(process, log)
        cloud = load_cloud(directory)
        write_cloud_inventory(directory, played, cloud, beside)
        yield CloudLab(directory, played, cloud)
    finally:
        await _end(process)
        if process.returncode is not None and process.returncode < 0:
            with locked(directory, remedy):
                await clear_planes(directory)


@contextlib.asynccontextmanager
async def running_mixed_lab(directory: Path, local_directory: Path, *, world: World | None = None) -> AsyncIterator[CloudLab]:
    """A cloud lab and a lab of processes, in one inventory."""
    async with running_lab(local_directory) as local, running_cloud_lab(directory, world=world, beside=local) as lab:
        yield lab


async def _ready(process: asyncio.subprocess.Process, log: Path) -> None:
    if process.stdout is None:
        raise LabError("the simulator was started without a pipe")
    said = b""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while line := await process.stdout.readline():
                if line == b"ready\n":
                    return
                said += line
    except TimeoutError as error:
        raise LabError(f"the cloud lab was not ready after {READY_SECONDS:g} s; read {log}") from error
    raise LabError(" ".join(said.decode(errors="replace").split()) or f"the simulator ended early; read {log}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _up(directory: Path, world: World) -> int:
    async with running_cloud_lab(directory, world=world) as lab:
        console.print(f"its inventory   {lab.inventory_path}\nfor a process that uses it:")
        for name, value in lab.environment().items():
            console.print(f"  export {name}={value}")
        console.print("Ctrl-C ends it.")
        await asyncio.Event().wait()
    return 0


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m compose.cloud_lab", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where the lab keeps its world, keys and logs")
    parser.add_argument("--realistic", action="store_true", help="operations take 30 to 300 s, as the real ones")
    arguments = parser.parse_args()
    return run_until_done(_up(arguments.directory, realistic_world() if arguments.realistic else default_world()))


if __name__ == "__main__":
    sys.exit(main())
