"""The lab in containers: `python -m compose.container_lab up|down|status --directory DIR`."""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import httpx

from compose.cli import run_until_done
from compose.compose_tool import compose
from compose.container_description import PROJECT, ContainerLab, load_container_lab, prepare_container_lab
from compose.container_files import write_files
from compose.container_inventory import OF_THE_POOL, POOL, settings_path, write_container_inventory
from compose.container_project import owner, remove_project, running_containers, states, volume_path
from compose.description import LabError, save
from compose.engine import ensure_base_image
from compose.progress import console, doing

IMAGES = ("database", "app", "web", "cache")
"""Services that have an image to build, the longest first."""
BUILD_SECONDS = 600.0
UP_SECONDS = 120.0
PREFECT_SECONDS = 240.0
SERVICES_OF = {
    "prefect": ("prefect-database", "prefect-server", "prefect-setup", "prefect-worker"),
    "scale": (
        "prefect-database",
        "prefect-broker",
        "prefect-api",
        "prefect-api-replica",
        "prefect-services",
        "prefect-balancer",
        "scale-setup",
        "scale-worker",
        "scale-second-worker",
    ),
}
"""Profile -> the services with which it keeps the lab healthy."""
BUILT_FOR = {"prefect": "prefect-server", "scale": "prefect-api"}
"""Profile -> the service that evenkeel's image is built for."""
Profile = Literal["prefect", "scale"]
READY_SECONDS = 60.0
REGISTER_SECONDS = 90.0


async def start_container_lab(directory: Path, project: str = PROJECT) -> ContainerLab:
    """Build and start a lab that outlives the caller, and wait until it is healthy; one that runs is left as it is, save what is missing.

    LabError when it does not come up; what had started is then left to be looked at, and ended by `stop_container_lab`.
    """
    await asyncio.to_thread(ensure_base_image)
    await _refuse_others(directory, project)
    lab = prepare_container_lab(directory, project)
    if not await running_containers(project) or not lab.compose_environment.exists():
        # Whatever an earlier lab left has other passwords.
        await remove_project(project)
        write_files(lab, await volume_path(project, "database"))
    with doing("build the images"):
        await _build(lab)
    with doing("start PostgreSQL, Redis, Nginx, two replicas of the shop and its traffic"):
        await compose(lab, "up", "--detach", "--wait", f"--wait-timeout={UP_SECONDS:g}", seconds=UP_SECONDS + 30)
        await _until_it_serves(lab)
    lab = lab.model_copy(update={"database_settings": await settings_path(lab)})
    save(lab)
    write_container_inventory(lab)
    return lab


async def _build(lab: ContainerLab) -> None:
    """Build all images side by side: an engine without BuildKit builds those of one call one after the other."""
    try:
        async with asyncio.TaskGroup() as building:
            for service in IMAGES:
                building.create_task(compose(lab, "build", "--quiet", service, seconds=BUILD_SECONDS))
    except* LabError as failures:
        raise failures.exceptions[0] from None


async def _refuse_others(directory: Path, project: str) -> None:
    """LabError where the project belongs to a lab in another directory that is still there."""
    other = await owner(project)
    if other is not None and other != directory.absolute() and other.exists():
        raise LabError(f"project: {project!r} is the lab in {other}; end that one, or give another name with --project")


async def stop_container_lab(directory: Path, project: str = PROJECT) -> bool:
    """Remove the lab's containers, networks and volumes; its directory and the images stay. False where nothing was left.

    `project` counts where the directory does not tell. LabError where it is the lab of another directory.
    """
    with contextlib.suppress(LabError):
        project = load_container_lab(directory).project
    await _refuse_others(directory, project)
    return await remove_project(project)


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


async def start_prefect(lab: ContainerLab, profile: Profile = "prefect") -> None:
    """Start what keeps the lab healthy, as containers too: Prefect's server, the worker and every deployment. LabError as above.

    `scale`: the server in parts, and two workers, of which the second watches database and cache from a pool of its own.
    """
    write_container_inventory(lab, dict.fromkeys(OF_THE_POOL, POOL) if profile == "scale" else None)
    with doing("build evenkeel's image"):
        await compose(lab, "build", "--quiet", BUILT_FOR[profile], seconds=BUILD_SECONDS, profiles=(profile,))
    with doing("start Prefect's server and its workers, save the inventory, apply the deployments"):
        await compose(lab, "up", "--detach", *SERVICES_OF[profile], seconds=PREFECT_SECONDS, profiles=(profile,))


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


async def _up(directory: Path, project: str, profile: Profile | None) -> int:
    began = time.monotonic()
    lab = await start_container_lab(directory, project)
    console.print(f"[bold]healthy after {time.monotonic() - began:.1f} s[/bold]")
    if profile is not None:
        await start_prefect(lab, profile)
        console.print(f"[bold]The Prefect UI: {lab.prefect.url}[/bold]")
        if profile == "scale":
            console.print(f"it asks for the auth string, which is in {lab.secrets('scale-worker') / 'logins.env'}")
    elif os.environ.get("PREFECT_API_URL"):
        with doing("register the inventory"):
            await register(lab)
    await _show(lab)
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
            return await _up(arguments.directory, arguments.project, arguments.profile)
        case "down":
            console.print("removed" if await stop_container_lab(arguments.directory, arguments.project) else "nothing was left of it")
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
    how = up.add_mutually_exclusive_group()
    with_prefect = "Prefect's server and worker in containers as well; the worker gets the engine's socket"
    how.add_argument("--with-prefect", action="store_const", dest="profile", const="prefect", help=with_prefect)
    scale = "the same with the server in parts: two replicas of its API, services, Redis; and with workers of two pools"
    how.add_argument("--scale", action="store_const", dest="profile", const="scale", help=scale)
    down = commands.add_parser("down", help="remove its containers, networks and volumes")
    status = commands.add_parser("status", help="show the state of each container")
    for command in (up, down):
        command.add_argument("--project", default=PROJECT, help="name of the compose project; another one for a second lab")
    for command in (up, down, status):
        command.add_argument("--directory", type=Path, required=True, help="where the lab keeps its configuration and logins")
    return run_until_done(_run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
