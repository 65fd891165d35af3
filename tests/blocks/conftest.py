"""A Prefect server of the session's own for the blocks."""

from collections.abc import Iterator

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from tests.prefect_events import events_go_to


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """An empty Prefect server, which this process uses."""
    settings = {PREFECT_SERVER_ANALYTICS_ENABLED: False, PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 50}
    with temporary_settings(updates=settings), prefect_test_harness(server_startup_timeout=60):
        yield


@pytest.fixture(autouse=True)
def _events_go_here(request: pytest.FixtureRequest) -> Iterator[None]:
    if "prefect_server" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("prefect_server")
    with events_go_to(PREFECT_API_URL.value() or ""):
        yield
