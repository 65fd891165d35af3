"""What a PostgreSQL server's log says of a start that failed. Pure."""

import re
from collections.abc import Sequence

_STARTED = "database system is ready to accept connections"
_NAME = r'"(?P<name>[A-Za-z_][A-Za-z0-9_.]*)"'
# As the server words it in English (lc_messages): guc.c, guc-file.l and the checks at the start.
_REFUSALS = tuple(
    re.compile(text)
    for text in (
        rf"invalid value for parameter {_NAME}",
        rf"unrecognized configuration parameter {_NAME} in file",
        rf"parameter {_NAME} requires a (?:Boolean|numeric) value",
        rf"is outside the valid range for parameter {_NAME}",
    )
)
_LIMITS = re.compile(r'"superuser_reserved_connections" \(\d+\) plus "reserved_connections" \(\d+\) must be less than "max_connections"')
# A library that can't be loaded keeps the server from starting only where it is preloaded.
_LIBRARY = re.compile(r'FATAL:\s+could not (?:access file|load library) "')
_NO_MEMORY = re.compile(r"could not (?:map anonymous|create) shared memory|reduce the size of .*shared memory|shared_buffers")


def refused_setting(lines: Sequence[str]) -> str | None:
    """The setting for which the last start failed, by the log's lines in their order; None where the log does not name one."""
    last = max((number for number, line in enumerate(lines) if _STARTED in line), default=-1)
    since = lines[last + 1 :]
    if not any("FATAL:" in line for line in since):
        return None
    for line in reversed(since):
        for refusal in _REFUSALS:
            found = refusal.search(line)
            if found is not None:
                return found["name"]
        if _LIMITS.search(line):
            return "max_connections"
        if _LIBRARY.search(line):
            return "shared_preload_libraries"
        if _NO_MEMORY.search(line):
            return "shared_buffers"
    return None
