"""The whole thing on one machine: lab, Prefect server, registered inventory, deployments, worker, and a first monitor run."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.settings import temporary_settings
from prefect.states import Crashed

from compose.control_plane import ControlPlane
from compose.description import LabDescription, LabError, free_ports
from compose.lab import running_lab
from compose.progress import doing

if TYPE_CHECKING:
    from compose.cloud_lab import CloudLab
    from compose.google_cloud.world import World

FIRST_SWEEP_SECONDS = 120.0
SWEEPS_READ = 50
OF_THE_LAB = ("monitor/lab", "watch/lab")
OF_THE_CLOUD = ("monitor/gcp",)
"""What is scheduled for the one inventory, and what for the other."""

LabKind = Literal["processes", "containers"]
LAB_KINDS: tuple[LabKind, ...] = get_args(LabKind)


class Lab(Protocol):
    """What is registered of any lab."""

    @property
    def inventory_path(self) -> Path:
        """Its inventory."""

    @property
    def environment_path(self) -> Path:
        """The variables that the inventory refers to."""


AnyLab = TypeVar("AnyLab", bound=Lab)


@dataclass(frozen=True)
class Running:
    """A control plane, and the database that its server keeps its data in."""

    prefect_database: LabDescription
    plane: ControlPlane

    @contextmanager
    def client(self) -> Iterator[PrefectClient]:
        """A client of the stack's own server, whatever server this user's profile names."""
        with temporary_settings(updates=self.plane.client_settings):
            yield get_client()


@dataclass(frozen=True)
class Stack(Running):
    """A running lab and the control plane that keeps it healthy."""

    lab: LabDescription


@dataclass(frozen=True)
class CloudStack(Running):
    """The same for the cloud lab."""

    lab: "CloudLab"


@asynccontextmanager
async def stack(
    directory: Path,
    port: int | None = None,
    lab_kind: LabKind = "processes",
    project: str | None = None,
    server_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stack]:
    """Bring everything up, and everything down on the way out, however that comes about.

    A lab of containers that ran already goes on afterwards; `project` is its name among others on the same engine. `server_settings` are
    variables for Prefect's server besides.
    """
    what = "start the lab: PostgreSQL, Redis, Nginx, the shop and its traffic"
    async with _servers(directory, port, _lab(directory, lab_kind, project), what, server_settings) as (lab, prefect_database, plane):
        running = Stack(prefect_database, plane, lab)
        await _set_up(running, lab, OF_THE_LAB, {})
        yield running


@asynccontextmanager
async def cloud_stack(directory: Path, world: "World", port: int | None = None, *, mixed: bool = False) -> AsyncIterator[CloudStack]:
    """The same around a simulated Google Cloud: what watches it finds Google's addresses there, by its environment alone.

    `mixed` has a lab of processes beside it, in the same inventory.
    """
    # Needed here alone, and not quick to import.
    from compose.cloud_lab import running_cloud_lab, running_mixed_lab

    place = directory / "lab-cloud"
    starting = running_mixed_lab(place, directory / "lab", world=world) if mixed else running_cloud_lab(place, world=world)
    what = "start the cloud lab: a project with a virtual machine, Cloud SQL and two Memorystores"
    async with _servers(directory, port, starting, what) as (lab, prefect_database, plane):
        running = CloudStack(prefect_database, plane, lab)
        await _set_up(running, lab, OF_THE_CLOUD, lab.environment())
        yield running


async def _set_up(running: Running, lab: Lab, scheduled: tuple[str, ...], environment: Mapping[str, str]) -> None:
    """Register the lab, apply the deployments, and start what watches it."""
    plane = running.plane
    with doing("register the inventory and apply the deployments"):
        await plane.run("-m", "blocks.register", str(lab.inventory_path), "--env-file", str(lab.environment_path))
        await plane.deploy()
        await _schedule(running, scheduled)
    with doing("start the worker and a first monitor run"):
        await close_abandoned(running)
        await plane.start_worker(environment)
        await _first_monitor_run(running, scheduled[0])


async def _schedule(running: Running, wanted: tuple[str, ...]) -> None:
    """Let only those run by their schedules: for the others there is no inventory here."""
    with running.client() as client:
        async with client:
            for name in (*OF_THE_LAB, *OF_THE_CLOUD):
                deployment = await client.read_deployment_by_name(name)
                for schedule in deployment.schedules:
                    if schedule.active is not (name in wanted):
                        await client.update_deployment_schedule(deployment.id, schedule.id, active=name in wanted)


async def close_abandoned(running: Running) -> None:
    """Runs of an earlier stack that its end left Running: no worker has them, and they would keep their places for minutes."""
    of_a_process = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]))
    with running.client() as client:
        async with client:
            for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(state=of_a_process)):
                await client.set_flow_run_state(run.id, Crashed(message="the worker that ran it was ended with its stack"))


def _lab(directory: Path, kind: LabKind, project: str | None) -> AbstractAsyncContextManager[LabDescription]:
    if kind == "processes":
        return running_lab(directory / "lab")
    # Needed here alone, and not quick to import.
    from compose.container_description import PROJECT
    from compose.container_lab import running_container_lab

    return running_container_lab(directory / "lab-containers", project or PROJECT)


@asynccontextmanager
async def _servers(
    directory: Path,
    port: int | None,
    starting_lab: AbstractAsyncContextManager[AnyLab],
    what: str,
    server_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[AnyLab, LabDescription, ControlPlane]]:
    """The lab, and the Prefect server on a PostgreSQL of its own, started side by side."""
    async with AsyncExitStack() as cleanup:
        with doing(what):
            async with asyncio.TaskGroup() as starting:
                lab = starting.create_task(cleanup.enter_async_context(starting_lab))
                own = starting.create_task(cleanup.enter_async_context(running_lab(directory / "prefect-database", ["database"])))
        with doing("start Prefect's server"):
            plane = ControlPlane(directory, port or free_ports(1)[0], prefect_database_url(own.result()), server_settings)
            cleanup.push_async_callback(plane.stop)
            await plane.start_server()
        yield lab.result(), own.result(), plane


def prefect_database_url(lab: LabDescription) -> str:
    """The database of a lab as Prefect's server takes it; it holds the password."""
    return lab.database.conninfo("application").replace("postgresql://", "postgresql+asyncpg://", 1)


async def _first_monitor_run(running: Running, deployment_name: str) -> None:
    """Start a monitor run at once, so that nobody waits for the schedule's next minute, and wait for a first sweep.

    Whose it is does not matter: runs that an earlier stack left late may take all the places that there are.
    """
    began = datetime.now(UTC)
    with running.client() as client:
        async with client:
            deployment = await client.read_deployment_by_name(deployment_name)
            name = f"Watch {deployment.parameters['inventory']}, first run"
            await client.create_flow_run_from_deployment(deployment.id, name=name)
            of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]))
            deadline = time.monotonic() + FIRST_SWEEP_SECONDS
            while time.monotonic() < deadline:
                tasks = await client.read_task_runs(flow_run_filter=of_it, sort=TaskRunSort.END_TIME_DESC, limit=SWEEPS_READ)
                if any(task.state is not None and task.state.is_completed() and task.end_time and task.end_time >= began for task in tasks):
                    return
                await asyncio.sleep(0.2)
    raise LabError(f"no sweep within {FIRST_SWEEP_SECONDS:g} s; read {running.plane.directory / 'worker.log'}")
