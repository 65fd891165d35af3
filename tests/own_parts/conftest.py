"""A Prefect server, its PostgreSQL, and a lab whose records are in PostgreSQL too: all may be killed here, and is whole again after."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from blocks.documents import write
from blocks.gemini import save_gemini
from compose.control_plane import ControlPlane
from compose.description import free_ports
from compose.stack import prefect_database_url
from flows.reset import reset
from tasks import recording
from tasks.connecting import live
from tests.conftest import StartLab
from tests.flows.cache_fault import empty, fill
from tests.flows.full_cache import block
from tests.own_parts.remediations import Remediations
from tests.own_parts.scene import Scene, World, deploy, forget_what_was_said, registration
from tests.prefect_events import events_go_to

STALE_SECONDS = 2.5
"""For those who take over here: a killed process needs no patience, and every test waits for it."""
PATIENT = {"timeout_seconds": 60, "total_seconds": 90}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What Prefect's clients leave open when a server goes is for the process to end; it is not ours to close."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="module", autouse=True)
def _ends_here() -> Iterator[None]:
    """What is left open is collected here, where that is expected."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, start_partial_lab: StartLab) -> Iterator[World]:
    """Everything, running, but for a worker."""
    directory = tmp_path_factory.mktemp("own-parts")
    with ExitStack() as stack:
        lab = stack.enter_context(start_partial_lab("cache", "database"))
        own = stack.enter_context(start_partial_lab("database"))
        runner = stack.enter_context(asyncio.Runner())
        plane = ControlPlane(directory, free_ports(1)[0], prefect_database_url(own))
        found = World(lab, own, plane, runner, free_ports(1)[0])

        async def set_up() -> None:
            await plane.start_server()
            await plane.run("-m", "blocks.register", str(registration(lab, directory)), "--env-file", str(lab.environment_path))
            await deploy(plane)
            with temporary_settings(updates=plane.client_settings):
                async with get_client() as client:
                    await write(client, {"lab": block(found.model_port, PATIENT)})

        try:
            runner.run(set_up())
            yield found
        finally:
            runner.run(plane.stop())


@pytest.fixture(scope="session")
def remediations(world: World) -> Iterator[Remediations]:
    """Processes that each heal the cache when they are told to."""
    started = Remediations(world.plane)
    yield started
    started.end()


@pytest.fixture
async def scene(world: World, remediations: Remediations, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A full cache that nobody heals yet, and clients for independent queries; the baseline again afterwards."""
    monkeypatch.setattr(recording, "STALE_SECONDS", STALE_SECONDS)
    settings = {**world.plane.client_settings, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(updates=settings), events_go_to(world.plane.api_url):
        await reset()
        async with live("lab") as opened:
            await opened.records.planner_succeeded("gemini/lab")
            await fill(world.lab, 96)
            await forget_what_was_said(world.lab)
            try:
                yield Scene(world, opened, remediations, datetime.now(UTC))
            finally:
                await empty(world.lab)
                for left in await opened.records.open_fixes("lab"):
                    record = await opened.records.get(left.fix_id)
                    assert record is not None
                    # Whatever a failing test left must not hold the resource for the next one.
                    await opened.records.withdraw(left.fix_id, datetime.now(UTC), "the test is over")
                    await opened.records.abandon(record, left.heartbeat_at, datetime.now(UTC), "the test is over")
        await reset()


@pytest.fixture
async def without_a_model(scene: Scene) -> AsyncIterator[None]:
    """The runbooks plan."""
    async with get_client() as client:
        await save_gemini(client, "lab", None)
        yield
        await write(client, {"lab": block(scene.world.model_port, PATIENT)})
