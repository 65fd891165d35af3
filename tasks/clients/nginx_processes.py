"""The processes of one Nginx on this machine, read from Linux's /proc (proc(5))."""

import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tasks.core.errors import NotApplicable, ToolFailed

MASTER_TITLE = "nginx: master process"
WORKER_TITLE = "nginx: worker process"
DRAINING_TITLE = "nginx: worker process is shutting down"
STOPPED_STATES = frozenset("tT")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

GONE = (FileNotFoundError, ProcessLookupError)

WorkerState = Literal["serving", "draining", "stopped"]
Identity = tuple[int, int]
"""Process id and start, which no later process shares."""


@dataclass(frozen=True)
class Worker:
    """One worker process."""

    pid: int
    started_ticks: int
    """Clock ticks from the machine's start to its own."""
    started_at: float
    """Epoch seconds, to 10 ms."""
    state: WorkerState
    """draining: it finishes its requests and takes no new ones; stopped: by a signal, it does nothing."""
    connections: int | None
    """Sockets to clients and upstreams; None where the process may not be looked into."""
    open_files: int | None
    """Its limit of open files."""

    @property
    def identity(self) -> Identity:
        """Which process this is."""
        return self.pid, self.started_ticks


@dataclass(frozen=True)
class Processes:
    """The master and its workers at one moment."""

    master: Identity
    workers: tuple[Worker, ...]
    open_files: tuple[int, int] | None = None
    """The master's soft and hard limit of open files."""
    connections: int | None = None
    """Of all together, where those of each worker can't be told."""
    is_inside: bool = False
    """Whether the pids are those inside a container."""

    def of(self, *states: WorkerState) -> tuple[Worker, ...]:
        """The workers in any of the states."""
        return tuple(worker for worker in self.workers if worker.state in states)


@dataclass(frozen=True)
class Invocation:
    """How the running master was started: the same binary, prefix and configuration serve to test a new one."""

    executable: str
    directory: str
    prefix: str | None
    config: str | None
    directives: str | None
    title: str = ""

    @property
    def config_path(self) -> str | None:
        """Absolute path of the configuration; None where the binary's built-in one is used."""
        if self.config is None:
            return None
        return os.path.realpath(Path(self.directory, self.prefix or "", self.config))

    def arguments(self, *options: str, config: str | None = None) -> list[str]:
        """The binary's argument vector with further options, for another configuration file where one is given."""
        vector = [self.executable, *options]
        for flag, value in (("-p", self.prefix), ("-c", config or self.config), ("-g", self.directives)):
            if value is not None:
                vector += [flag, value]
        return vector


def read_processes(master_pid: int) -> Processes | None:
    """The processes under this master; None where the pid is no Nginx master (any more).

    A worker's connections are the sockets that it holds and its master does not: what is inherited or shared are listening
    sockets and the channel between the two, what a worker opens itself are clients and upstreams. Each takes one of its
    worker_connections. This costs a look at the workers' descriptors alone, where the kernel's table of all TCP sockets takes
    milliseconds on any machine and far more on a busy one.
    """
    if not _title(master_pid).startswith(MASTER_TITLE):
        return None
    master = _stat(master_pid)
    if master is None:
        return None
    try:
        children = [int(pid) for pid in Path(f"/proc/{master_pid}/task/{master_pid}/children").read_text().split()]
    except GONE:
        return None
    shared = _sockets(master_pid)
    workers = [worker for pid in children if (worker := _read_worker(pid, shared)) is not None]
    return Processes((master_pid, master[1]), tuple(workers), read_open_files(master_pid))


def _read_worker(pid: int, shared: frozenset[str] | None) -> Worker | None:
    title, stat = _title(pid), _stat(pid)
    if stat is None or not title.startswith(WORKER_TITLE):
        return None
    own = _sockets(pid)
    connections = None if own is None or shared is None else len(own - shared)
    return worker_of(pid, title, stat, connections, read_open_files(pid))


def worker_of(pid: int, title: str, stat: tuple[str, int], connections: int | None, limits: tuple[int, int] | None) -> Worker:
    """The worker that these words of /proc are about."""
    letter, started = stat
    state: WorkerState = "serving"
    if letter in STOPPED_STATES:
        state = "stopped"
    elif title.startswith(DRAINING_TITLE):
        state = "draining"
    return Worker(pid, started, _epoch(started), state, connections, limits[0] if limits else None)


def _title(pid: int) -> str:
    """What the process calls itself; empty where there is none, or only a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (*GONE, PermissionError):
        return ""


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter, and start in clock ticks since the machine's; None where the process is gone."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except GONE:
        return None


def parse_stat(text: str) -> tuple[str, int]:
    """State letter, and start in clock ticks, of a line of /proc/PID/stat."""
    fields = text.rpartition(")")[2].split()
    # The name, field 2, is cut off: fields[0] is field 3 (state), fields[19] is field 22 (starttime).
    return fields[0], int(fields[19])


def _epoch(ticks: int) -> float:
    """psutil's create_time counts from the boot time in whole seconds, too coarse to tell what came before a reload."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS_A_SECOND


def _sockets(pid: int) -> frozenset[str] | None:
    """The socket inodes that a process holds; None where its descriptors may not be read."""
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                target = _target(descriptor.path)
                if target.startswith("socket:"):
                    found.add(target)
    except PermissionError:
        return None
    except GONE:
        return frozenset()
    return frozenset(found)


def _target(descriptor: str) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115  three times as fast as a Path's, and there is one call a connection
    except GONE:
        return ""  # closed meanwhile


def read_open_files(pid: int) -> tuple[int, int] | None:
    """Soft and hard limit of open files, which /proc shows to everybody; None where the process is gone."""
    try:
        return parse_open_files(Path(f"/proc/{pid}/limits").read_text())
    except GONE:
        return None


def parse_open_files(limits: str) -> tuple[int, int] | None:
    """Soft and hard limit of open files in /proc/PID/limits."""
    match = re.search(r"^Max open files +(\w+) +(\w+)", limits, re.MULTILINE)
    if match is None:
        return None
    soft, hard = (sys.maxsize if value == "unlimited" else int(value) for value in match.groups())
    return soft, hard


def read_invocation(master_pid: int) -> Invocation | None:
    """How the master was started; None where it is gone or may not be looked into."""
    try:
        process = psutil.Process(master_pid)
        executable, directory = process.exe(), process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return parse_title(_title(master_pid), executable, directory)


def parse_title(title: str, executable: str, directory: str) -> Invocation:
    """The options in a master's title, which Nginx joins with spaces: `nginx: master process nginx -p /srv -g daemon off;`."""
    parts = re.split(r"(?:^|\s)-([pcgest])\s*", title.removeprefix(MASTER_TITLE))
    options = dict(zip(parts[1::2], (value.strip() for value in parts[2::2]), strict=True))
    return Invocation(executable, directory, options.get("p"), options.get("c"), options.get("g"), title)


def send_signal(identity: Identity, number: signal.Signals) -> None:
    """Signal one process that was read before; NotApplicable where it is gone, ToolFailed where that is not permitted."""
    pid, started = identity
    stat = _stat(pid)
    if stat is None or stat[1] != started:
        raise NotApplicable(f"nginx: process {pid} is gone")
    try:
        os.kill(pid, number)
    except ProcessLookupError as error:
        raise NotApplicable(f"nginx: process {pid} is gone") from error
    except PermissionError as error:
        raise ToolFailed(f"nginx: not permitted to send {number.name} to process {pid}") from error
