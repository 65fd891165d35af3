"""Processes by number and start time: a number alone may be another process by now."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_SECONDS = 0.01

StopSignals = tuple[tuple[signal.Signals, float], ...]
"""Signals that ask a service to stop, gentlest first, each with its grace in seconds."""


@dataclass(frozen=True)
class Identity:
    """One process, for the life of this boot."""

    pid: int
    start_ticks: int
    """Start in clock ticks since boot (/proc/PID/stat, field 22); unlike an epoch time it survives a change of the clock."""


@dataclass(frozen=True)
class Trace:
    """What tells the processes of a service.

    A service and all that it starts inherit its log as their output, also those that make a session of their own (PostgreSQL's
    backends) or outlive their parent (Nginx's workers); a shell or an editor opened in the lab's directory does not.
    """

    log: Path
    words: tuple[str, ...] = ()
    """Parts of the command lines of those that run as another user."""


def boot_id() -> str:
    """Random name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> Identity | None:
    """The process of that number, or None when it is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in parentheses, and may hold anything.
    state, *fields = text[text.rindex(")") + 2 :].split()
    return None if state in {"Z", "X"} else Identity(pid, int(fields[18]))


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(identity.pid) == identity


def send(identity: Identity, number: int) -> bool:
    """Signal that very process; False when it is gone."""
    if not is_alive(identity):
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def descendants(identity: Identity) -> set[Identity]:
    """Everything that the process started and that still hangs below it."""
    if not is_alive(identity):
        return set()
    try:
        children = psutil.Process(identity.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    return {found for child in children if (found := identify(child.pid)) is not None}


def traced(trace: Trace) -> set[Identity]:
    """Every process of a service, whoever its parent is by now, and all that hangs below one."""
    outputs = {str(trace.log), f"{trace.log} (deleted)"}
    pids = [pid for pid in psutil.pids() if pid != os.getpid() and _bears(pid, outputs, trace.words)]
    found = {identity for pid in pids if (identity := identify(pid)) is not None}
    return found.union(*(descendants(identity) for identity in found))


def _bears(pid: int, outputs: set[str], words: tuple[str, ...]) -> bool:
    process = Path(f"/proc/{pid}")
    for number in (1, 2):
        try:
            if str((process / f"fd/{number}").readlink()) in outputs:
                return True
        except PermissionError:
            # Another user's. Root in a container often may not look into it; its command line can be read by everybody.
            return any(word in _command_line(process) for word in words)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def wait_gone(identities: set[Identity], deadline_seconds: float) -> set[Identity]:
    """Wait until all are gone; those that are left at the deadline."""
    loop = asyncio.get_running_loop()
    end_at = loop.time() + deadline_seconds
    left = {identity for identity in identities if is_alive(identity)}
    while left and loop.time() < end_at:
        await asyncio.sleep(POLL_SECONDS)
        left = {identity for identity in left if is_alive(identity)}
    return left


async def end(main: Identity, trace: Trace, stop_signals: StopSignals, kill_seconds: float = 5) -> set[Identity]:
    """End a service: its stop signals one after the other, then SIGKILL for all that is left of it.

    What can't be ended, such as a process in uninterruptible sleep, is returned.
    """
    members = {main} | descendants(main)
    for number, grace_seconds in stop_signals:
        if not send(main, number):
            break
        # A frozen process takes no signal before it continues, and PostgreSQL waits for a frozen backend.
        for member in members:
            send(member, signal.SIGCONT)
        if not await wait_gone({main}, grace_seconds):
            break
    return await kill(members | descendants(main) | traced(trace), kill_seconds)


async def kill(members: set[Identity], deadline_seconds: float = 5) -> set[Identity]:
    """SIGKILL those processes; what is left of them at the deadline."""
    for member in members:
        send(member, signal.SIGKILL)
    return await wait_gone(members, deadline_seconds)
