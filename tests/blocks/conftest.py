"""A Prefect server of the session's own for the blocks."""

from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED, PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE, temporary_settings
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """An empty Prefect server, which this process uses."""
    settings = {PREFECT_SERVER_ANALYTICS_ENABLED: False, PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 50}
    with temporary_settings(updates=settings), prefect_test_harness(server_startup_timeout=60):
        yield
