"""The lab in containers: `python -m compose.container_lab up|down|status --directory DIR`."""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from compose.cli import run_until_done
from compose.compose_tool import compose
from compose.container_description import PROJECT, ContainerLab, load_container_lab, prepare_container_lab
from compose.container_files import write_files
from compose.container_inventory import settings_path, write_container_inventory
from compose.container_project import remove_project, running_containers, states
from compose.description import LabError, save
from compose.engine import ensure_base_image
from compose.progress import console, doing

IMAGES = ("database", "app", "web", "cache")
"""Services that have an image to build, the longest first."""
BUILD_SECONDS = 600.0
UP_SECONDS = 120.0
READY_SECONDS = 60.0
REGISTER_SECONDS = 90.0


async def start_container_lab(directory: Path, project: str = PROJECT) -> ContainerLab:
    """Build and start a lab that outlives the caller, and wait until it is healthy; one that runs is left as it is, save what is missing.

    LabError when it does not come up; what had started is then left to be looked at, and ended by `stop_container_lab`.
    """
    await asyncio.to_thread(ensure_base_image)
    lab = prepare_container_lab(directory, project)
    if not await running_containers(project):
        # Whatever an earlier lab left has other passwords.
        await remove_project(project)
        write_files(lab)
    with doing("build the images"):
        # One call for each: an engine without BuildKit builds the images of one call one after the other.
        async with asyncio.TaskGroup() as building:
            for service in IMAGES:
                building.create_task(compose(lab, "build", "--quiet", service, seconds=BUILD_SECONDS))
    with doing("start PostgreSQL, Redis, Nginx, two replicas of the shop and its traffic"):
        await compose(lab, "up", "--detach", "--wait", f"--wait-timeout={UP_SECONDS:g}", seconds=UP_SECONDS + 30)
        await _until_it_serves(lab)
    lab = lab.model_copy(update={"database_settings": await settings_path(lab)})
    save(lab)
    write_container_inventory(lab)
    return lab


async def stop_container_lab(directory: Path) -> bool:
    """Remove the lab's containers, networks and volumes; its directory and the images stay. False where nothing was left."""
    return await remove_project(load_container_lab(directory).project)


@contextlib.asynccontextmanager
async def running_container_lab(directory: Path, project: str = PROJECT) -> AsyncIterator[ContainerLab]:
    """A lab for the length of a block. One that ran before goes on afterwards."""
    started_here = not await running_containers(project)
    try:
        yield await start_container_lab(directory, project)
    finally:
        if started_here:
            await remove_project(project)


async def _until_it_serves(lab: ContainerLab) -> None:
    """Wait until the shop works through Nginx, asked from the host as its visitors and the monitor ask."""
    deadline = time.monotonic() + READY_SECONDS
    pages = (f"{lab.web.url}healthz", f"{lab.app.url}healthz", f"{lab.web.url}products/1", f"{lab.traffic.url}stats")
    problem = ""
    async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
        for page in pages:
            while problem := await _problem(client, page):
                if time.monotonic() > deadline:
                    raise LabError(f"the lab does not serve after {READY_SECONDS:g} s: {problem}")
                await asyncio.sleep(0.1)


async def _problem(client: httpx.AsyncClient, page: str) -> str:
    try:
        response = await client.get(page)
    except httpx.TransportError as error:
        return f"{page}: {type(error).__name__}"
    return "" if response.is_success else f"{page}: {response.status_code} {response.text[:200]}"


async def register(lab: ContainerLab) -> None:
    """Save the lab's inventory in the Prefect server of PREFECT_API_URL; LabError shows why that fails."""
    command = ("-m", "blocks.register", str(lab.inventory_path), "--env-file", str(lab.environment_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(REGISTER_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise LabError(f"registering the inventory: not done after {REGISTER_SECONDS:g} s; is PREFECT_API_URL right?") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LabError(f"registering the inventory failed:\n{output.decode(errors='replace')[-1500:]}")


async def _up(directory: Path, project: str) -> int:
    began = time.monotonic()
    lab = await start_container_lab(directory, project)
    console.print(f"[bold]healthy after {time.monotonic() - began:.1f} s[/bold]")
    await _show(lab)
    if os.environ.get("PREFECT_API_URL"):
        with doing("register the inventory"):
            await register(lab)
    return 0


async def _show(lab: ContainerLab) -> None:
    for found in await states(lab.project):
        console.print(f"  {found['container']:<32} {found['state']:<9} {found['health']}")
    console.print(
        f"the shop        {lab.web.url}\n"
        f"its inventory   {lab.inventory_path}\n"
        f"the containers  docker compose --env-file {lab.compose_environment} -f compose/compose.yaml ps"
    )


async def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            return await _up(arguments.directory, arguments.project)
        case "down":
            console.print("removed" if await stop_container_lab(arguments.directory) else "nothing was left of it")
        case _:
            await _show(load_container_lab(arguments.directory))
    return 0


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m compose.container_lab", description="PostgreSQL, Redis, Nginx and the shop in containers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="build and start it, wait until it is healthy, register it where PREFECT_API_URL is set")
    up.add_argument("--project", default=PROJECT, help="name of the compose project; another one for a second lab")
    down = commands.add_parser("down", help="remove its containers, networks and volumes")
    status = commands.add_parser("status", help="show the state of each container")
    for command in (up, down, status):
        command.add_argument("--directory", type=Path, required=True, help="where the lab keeps its configuration and logins")
    return run_until_done(_run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
