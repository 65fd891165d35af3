"""Deals tests to pytest's workers: those that share what takes long to start go to the same one. Use: pytest -n N -p tests.dealing.

xdist's own groups do nothing with this pytest, which no longer takes the node ids that xdist writes them into.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
SHARED = {"pytest.mark.docker": "containers", "prefect_server": "a Prefect server", "google_cloud": "a simulated project"}
"""What a file's text names -> what its tests share."""


class Dealing(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A group is what starts once; a file where nothing is shared."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.split("::", 1)[0])


@cache
def group_of(file: str) -> str:
    """The group of a test file, whose path is relative to the project."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.startswith("tests/flows/"):
        # Two halves, which take about as long.
        return "flows, a to m" if Path(file).name < "test_n" else "flows, n to z"
    return next((group for named, group in SHARED.items() if named in text), file)


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Any:
    """Deal by these groups."""
    return Dealing(config, log)
