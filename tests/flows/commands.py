"""Programs that the tests run, within a time."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECONDS = 100.0


class Output(NamedTuple):
    """What a program left."""

    code: int
    out: str
    error: str


async def output_of(*command: str, directory: Path, environment: Mapping[str, str]) -> Output:
    """Run a program to its end; one that does not end in time is killed, and the test fails with its last words."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    ending = asyncio.create_task(process.communicate())
    in_time, _ = await asyncio.wait({ending}, timeout=SECONDS)
    if not in_time:
        process.kill()
    out, error = await ending
    assert in_time, f"{command[0]}: not finished within {SECONDS:g} s; {error.decode()[-2000:]}"
    assert process.returncode is not None
    return Output(process.returncode, out.decode(), error.decode())
