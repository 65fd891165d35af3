"""Real servers for the tests: one whole lab a session, and partial ones that a test module may spoil."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from blocks.gemini_section import BASE_URLS, KEY, MODEL
from compose.description import LabDescription
from compose.lab import lab_running
from tests.google_cloud_world import google_authority, google_cloud, google_records  # noqa: F401 - fixtures for all
from tests.tasks.engine import why_there_is_no_engine

if TYPE_CHECKING:
    from compose.container_description import ContainerLab

for variable in (KEY, MODEL, *BASE_URLS):
    os.environ.pop(variable, None)  # whatever the shell has, no test asks the real Gemini

# The first example of a property also pays for what is loaded once, and a machine may be busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without an engine, what needs one is skipped, and says why."""
    if item.get_closest_marker("docker") is not None and why_there_is_no_engine():
        pytest.skip(why_there_is_no_engine())


StartLab = Callable[..., AbstractContextManager[LabDescription]]


@contextmanager
def _lab(*services: str) -> Iterator[LabDescription]:
    """A lab of those services, or of all, in a directory that goes with it."""
    with (
        tempfile.TemporaryDirectory(prefix="evenkeel-test-") as directory,
        lab_running(Path(directory) / "lab", services or None) as lab,
    ):
        yield lab


@pytest.fixture(scope="session")
def lab() -> Iterator[LabDescription]:
    """Everything, shop and traffic included. Leave it as you find it."""
    with _lab() as running:
        yield running


@pytest.fixture(scope="session")
def start_partial_lab() -> StartLab:
    """`with start_partial_lab("cache", "web") as lab:` runs just those services."""
    return _lab


@pytest.fixture(scope="module")
def fresh_database() -> Iterator[LabDescription]:
    """A lab of this module's own with PostgreSQL alone."""
    with _lab("database") as running:
        yield running


@pytest.fixture(scope="module")
def fresh_cache() -> Iterator[LabDescription]:
    """A lab of this module's own with Valkey alone."""
    with _lab("cache") as running:
        yield running


@pytest.fixture(scope="module")
def fresh_web() -> Iterator[LabDescription]:
    """A lab of this module's own with Nginx alone: `/` answers, `/hold` keeps a request in flight for an hour."""
    with _lab("web") as running:
        yield running


@pytest.fixture(scope="session")
def container_lab() -> Iterator["ContainerLab"]:
    """Everything in containers, shop and traffic included: for tests with the marker `docker`. Leave it as you find it."""
    # Needed here alone, and not quick to import.
    from compose.container_lab import start_container_lab, stop_container_lab

    project = f"evenkeel-test-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="evenkeel-test-") as home, ThreadPoolExecutor(1) as elsewhere:
        directory = Path(home) / "lab"
        # In a thread: whoever asks for it may be in an event loop of its own.
        try:
            yield elsewhere.submit(lambda: asyncio.run(start_container_lab(directory, project))).result()
        finally:
            elsewhere.submit(lambda: asyncio.run(stop_container_lab(directory, project))).result()
