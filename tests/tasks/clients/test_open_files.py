"""The limit of open files, of a process of its own."""

import subprocess
import sys

ASK = """
import resource
from tasks.clients.open_files import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (1100, 4000))
print(repr(allow_connections(10)), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(repr(allow_connections(1000)), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(repr(allow_connections(10_000)), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
print(repr(allow_connections(10)), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_as_many_connections_are_allowed_as_the_resources_need_and_what_is_missing_is_told() -> None:
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert told == [
        "'' 1100",
        "'' 2024",
        "'10000 resources need up to 11024 open files, and 4000 are allowed: raise the hard limit, or use more shards' 4000",
        "'' 4000",
    ]
