"""A Prefect server with the deployments, and a whole lab registered in it; tests run the flows in their own process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from compose.control_plane import ControlPlane
from compose.description import LabDescription, free_ports
from compose.stack import prefect_database_url
from flows.reset import reset
from tasks.connecting import Live, live
from tests.prefect_events import events_go_to


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect's own clients of its API and of its event stream are left open for the process to end; they are not ours to close."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="module", autouse=True)
def _ends_here() -> Iterator[None]:
    """What Prefect leaves open is collected here, where that is expected, and not in whatever this process tests next."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def running_plane(
    tmp_path_factory: pytest.TempPathFactory, lab: LabDescription, start_partial_lab: Callable[..., AbstractContextManager[LabDescription]]
) -> Iterator[tuple[ControlPlane, asyncio.Runner]]:
    """A running Prefect server with the lab registered and everything deployed, and the loop that its process belongs to; no worker."""
    directory = tmp_path_factory.mktemp("control-plane")
    with start_partial_lab("database") as own, asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        # What is old goes at once, not once an hour: a test waits for it.
        patch.setenv("PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS", "2")
        patch.setenv("PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS", "2")
        plane = ControlPlane(directory, free_ports(1)[0], prefect_database_url(own))
        try:
            runner.run(plane.start_server())
            runner.run(register(plane, lab))
            runner.run(plane.deploy())
            runner.run(hold_schedules(plane))
            yield plane, runner
        finally:
            runner.run(plane.stop())


async def hold_schedules(plane: ControlPlane) -> None:
    """Tests start what they need; a scheduled monitor would heal their faults before them."""
    with temporary_settings(updates={PREFECT_API_URL: plane.api_url}):
        async with get_client() as client:
            deployment = await client.read_deployment_by_name("monitor/lab")
            await client.pause_deployment(deployment.id)


@pytest.fixture(scope="session")
def control_plane(running_plane: tuple[ControlPlane, asyncio.Runner]) -> ControlPlane:
    """The running Prefect server."""
    return running_plane[0]


@pytest.fixture
def restart_server(running_plane: tuple[ControlPlane, asyncio.Runner]) -> Callable[[], Awaitable[None]]:
    """Kills Prefect's server and starts it again at the same address and database."""
    plane, runner = running_plane

    async def restart() -> None:
        await plane.stop()
        await plane.start_server()

    async def from_a_running_test() -> None:
        await asyncio.to_thread(lambda: runner.run(restart()))

    return from_a_running_test


async def register(plane: ControlPlane, lab: LabDescription) -> None:
    await plane.run("-m", "blocks.register", str(lab.inventory_path), "--env-file", str(lab.environment_path))


@pytest.fixture
def prefect_server(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The server as this process's Prefect API."""
    home = Path(control_plane.environment["PREFECT_HOME"])
    settings = {PREFECT_API_URL: control_plane.api_url, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(updates=settings), events_go_to(control_plane.api_url):
        yield control_plane


@pytest.fixture(scope="session")
def served(control_plane: ControlPlane) -> Iterator[str]:
    """URL of the lab's MCP server."""
    # Needed by few, and not quick to import.
    from tests.flows.mcp_serving import serving

    with serving(control_plane) as url:
        yield url


@pytest.fixture
async def opened(prefect_server: ControlPlane) -> AsyncIterator[Live]:
    """The registered lab at its baseline, with clients for independent queries; at its baseline again afterwards."""
    await reset()
    async with live("lab") as found:
        yield found
    await reset()
