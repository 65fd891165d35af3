"""The same faults met by monit on a five-second cycle, with the right check and the right fix as scripts of its own."""

import asyncio
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from compose.description import LabDescription

CYCLE_SECONDS = 5
ROOT = Path(__file__).resolve().parent.parent.parent


def installed() -> bool:
    """Whether monit is on this machine."""
    return shutil.which("monit") is not None


@asynccontextmanager
async def monit(lab: LabDescription, name: str, directory: Path) -> AsyncIterator[None]:
    """monit watching for one fault."""
    directory.mkdir(parents=True, exist_ok=True)
    for verb in ("check", "fix"):
        script = directory / verb
        # The variables that a script of monit's gets are few: PATH and some of its own.
        script.write_text(f"#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.benchmarks.hard_coded {verb} {name} {lab.directory}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    control = directory / "monitrc"
    control.write_text(
        f"set daemon {CYCLE_SECONDS}\nset logfile {directory}/log\nset pidfile {directory}/pid\nset statefile {directory}/state\n"
        f"set idfile {directory}/id\n"
        f'check program fault with path "{directory}/check" with timeout 10 seconds\n'
        f'  if status != 0 then exec "{directory}/fix" repeat every 1 cycles\n'
    )
    control.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        "monit", "-I", "-c", str(control), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
