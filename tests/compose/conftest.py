"""Requests to a lab's supervisor, and processes as the kernel sees them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from compose.description import LabDescription

Call = Callable[..., httpx.Response]
WaitUntil = Callable[[Callable[[], Any]], None]
ProcessesOf = Callable[[Path], list[psutil.Process]]


@pytest.fixture(scope="session")
def call() -> Call:
    """`call(lab, "POST", "/services/cache/stop")` gives the supervisor's answer."""

    def request(lab: LabDescription, method: str, path: str, **query: str) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(lab.control)), base_url="http://lab", timeout=20) as client:
            return client.request(method, path, params=query)

    return request


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Wait up to ten seconds for a condition."""

    def wait(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "the condition did not come true within 10 s"
            time.sleep(0.02)

    return wait


def _belongs(process: psutil.Process, directory: Path) -> bool:
    try:
        if any(str(directory) in word for word in process.cmdline()):
            return True
        return Path(process.cwd()).is_relative_to(directory)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


@pytest.fixture(scope="session")
def processes_of() -> ProcessesOf:
    """Every process that works in a directory, or has it on its command line."""

    def find(directory: Path) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _belongs(process, directory)]

    return find
