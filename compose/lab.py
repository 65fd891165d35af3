"""The lab: start it, end it, look at it. `python -m compose.lab up|down|status --directory DIR`."""

import argparse
import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from compose.description import SERVICES, LabDescription, LabError, load
from compose.processes import Identity, is_alive, send, wait_gone
from compose.records import clear, locked, read_records

START_SECONDS = 60.0
STOP_SECONDS = 30.0
CALL_SECONDS = 15.0


def start_lab(directory: Path, services: Sequence[str] | None = None) -> LabDescription:
    """Start a lab that outlives the caller, and wait until all its services are healthy. LabError when it does not come up."""
    process = _spawn(directory, services, "--detach")
    with process:
        try:
            _await_ready(process)
        except TimeoutError as error:
            stop_lab(directory)
            raise LabError(str(error)) from error
    return load(directory)


def stop_lab(directory: Path) -> None:
    """End the directory's lab and what an earlier one left there. Nothing to end is no error, no lab at all is (LabError)."""
    lab = load(directory)
    asyncio.run(_stop(lab.directory))


async def _stop(directory: Path) -> None:
    records = read_records(directory)
    supervisor: Identity | None = records.supervisor.identity if records and records.supervisor else None
    if supervisor is not None and is_alive(supervisor):
        send(supervisor, signal.SIGTERM)
        if await wait_gone({supervisor}, STOP_SECONDS):
            send(supervisor, signal.SIGKILL)
            await wait_gone({supervisor}, STOP_SECONDS)
    with locked(directory):
        await clear(directory)


@contextlib.contextmanager
def lab_running(directory: Path, services: Sequence[str] | None = None) -> Iterator[LabDescription]:
    """A lab for the length of a block. It ends with the caller, however the caller ends."""
    process = _spawn(directory, services, "--lifeline")
    with process:
        try:
            _await_ready(process)
            yield load(directory)
        finally:
            _end(process)


@contextlib.asynccontextmanager
async def running_lab(directory: Path, services: Sequence[str] | None = None) -> AsyncIterator[LabDescription]:
    """`lab_running` for a coroutine: the event loop goes on while the lab starts and ends."""
    process = _spawn(directory, services, "--lifeline")
    with process:
        try:
            await asyncio.to_thread(_await_ready, process)
            yield load(directory)
        finally:
            # Also when cancelled while the lab starts: its end lets go of the thread that waits for it.
            await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a supervisor that is this process's child, and with it its lab."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _spawn(directory: Path, services: Sequence[str] | None, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "compose.supervisor", "--directory", str(directory.absolute()), mode]
    if services is not None:
        command += ["--services", ",".join(services)]
    root = Path(__file__).resolve().parent.parent
    search_path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": search_path},
        stdin=subprocess.PIPE if mode == "--lifeline" else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def _await_ready(process: subprocess.Popen[str]) -> None:
    """Wait for the supervisor's word. LabError with its reason when it gives up, TimeoutError when it says nothing."""
    if process.stdout is None:
        raise LabError("the supervisor was started without a pipe")
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline().strip() if readable else ""
    if line == "ready":
        return
    if not readable:
        raise TimeoutError(f"the lab was not healthy after {START_SECONDS:g} s")
    # The pipe ends with the supervisor: nothing of a failed start is left when this raises.
    process.stdout.read()
    raise LabError(line.removeprefix("error: ") or "the supervisor ended early; read log/supervisor.log in the lab's directory")


def states(lab: LabDescription) -> list[dict[str, Any]]:
    """State of each service as its supervisor tells it; LabError when none answers."""
    transport = httpx.HTTPTransport(uds=str(lab.control))
    try:
        with httpx.Client(transport=transport, base_url="http://supervisor", timeout=CALL_SECONDS) as client:
            found: list[dict[str, Any]] = client.get("/services").raise_for_status().json()
    except httpx.TransportError as error:
        raise LabError(f"{lab.directory}: the lab is down; start it with `python -m compose.lab up --directory {lab.directory}`") from error
    return found


def _addresses(lab: LabDescription) -> dict[str, str]:
    return {
        "database": f"{lab.database.host}:{lab.database.port}/{lab.database.dbname}",
        "cache": f"{lab.cache.host}:{lab.cache.port}",
        "web": lab.web.url,
        "app": lab.app.url,
        "traffic": lab.traffic.url,
    }


def _show(lab: LabDescription) -> None:
    addresses = _addresses(lab)
    for state in states(lab):
        name = state["name"]
        print(f"{name:<9} {state['state']:<8} pid {state['pid'] or '-':<8} {addresses[name]}")


def _up(directory: Path, services: Sequence[str] | None, *, detach: bool) -> None:
    began = time.monotonic()
    if detach:
        lab = start_lab(directory, services)
        print(f"healthy after {time.monotonic() - began:.2f} s")
        _show(lab)
        return
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave.set())
    with lab_running(directory, services) as lab:
        print(f"healthy after {time.monotonic() - began:.2f} s; Ctrl-C ends it")
        _show(lab)
        sys.stdout.flush()
        leave.wait()


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m compose.lab", description="PostgreSQL, Valkey, Nginx and the shop as plain processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the lab and wait until all is healthy")
    how = up.add_mutually_exclusive_group()
    how.add_argument("--foreground", action="store_true", help="stay until Ctrl-C (the default)")
    how.add_argument("--detach", action="store_true", help="leave it running")
    up.add_argument("--services", help=f"some of {','.join(SERVICES)}; all by default")
    down = commands.add_parser("down", help="end the lab and whatever an earlier one left")
    status = commands.add_parser("status", help="show the state of each service")
    for command in (up, down, status):
        command.add_argument("--directory", type=Path, required=True, help="where the lab keeps its data, logs and logins")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            services = arguments.services.split(",") if arguments.services else None
            _up(arguments.directory, services, detach=arguments.detach)
        elif arguments.command == "down":
            stop_lab(arguments.directory)
        else:
            _show(load(arguments.directory))
    except (LabError, TimeoutError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
