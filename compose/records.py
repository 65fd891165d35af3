"""Which processes a lab runs, on disk, so that the next start can end what a killed supervisor left behind."""

import contextlib
import fcntl
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from compose.description import SERVICES, LabDescription, LabError, Model, description_path, load, postgres_words, write_private
from compose.processes import Identity, StopSignals, Trace, boot_id, end, is_alive, kill, traced
from compose.service import Service
from compose.shared_memory import remove_left

# A folder of this name is made for the socket where the path of the lab's own directory is too long.
SOCKET_FOLDER_PREFIX = "evenkeel-"
LOCK_SECONDS = 0.5


class ProcessRecord(Model):
    """A service's main process, and how to end it."""

    pid: int
    start_ticks: int
    log: Path
    words: tuple[str, ...] = ()
    stop_signals: tuple[tuple[int, float], ...] = ()

    @property
    def identity(self) -> Identity:
        """The process."""
        return Identity(self.pid, self.start_ticks)


class Records(Model):
    """The processes of one lab, in one boot."""

    boot: str
    supervisor: ProcessRecord | None = None
    services: dict[str, ProcessRecord] = Field(default_factory=dict)


def records_path(directory: Path) -> Path:
    """Where a lab's processes are recorded."""
    return directory / "processes.json"


def record_of(identity: Identity, trace: Trace, stop_signals: StopSignals = ()) -> ProcessRecord:
    """What is kept of a process."""
    return ProcessRecord(
        pid=identity.pid,
        start_ticks=identity.start_ticks,
        log=trace.log,
        words=trace.words,
        stop_signals=tuple((int(number), seconds) for number, seconds in stop_signals),
    )


def write_records(directory: Path, supervisor: Identity, mains: Iterable[tuple[Service, Identity]]) -> None:
    """Record the supervisor and the main processes that run."""
    records = Records(
        boot=boot_id(),
        supervisor=record_of(supervisor, Trace(directory / "log" / "supervisor.log")),
        services={service.name: record_of(identity, service.trace, service.stop_signals) for service, identity in mains},
    )
    write_private(records_path(directory), records.model_dump_json(indent=2) + "\n")


def read_records(directory: Path) -> Records | None:
    """The processes of this boot that were recorded, or None; LabError for a damaged file."""
    path = records_path(directory)
    try:
        records = Records.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise LabError(f"{path}: not a list of processes; remove it, and end what is left of the lab by hand") from error
    return records if records.boot == boot_id() else None


async def end_survivors(directory: Path, traces: list[Trace]) -> None:
    """End exactly what an earlier supervisor of this directory left running.

    The main processes are known by number and start time, and are asked first; whatever else bears a trace of the lab's services was
    started by them. LabError when something can't be ended.
    """
    records = read_records(directory)
    left: set[Identity] = set()
    for record in records.services.values() if records else ():
        if is_alive(record.identity):
            signals = tuple((signal.Signals(number), seconds) for number, seconds in record.stop_signals)
            left |= await end(record.identity, Trace(record.log, record.words), signals)
    left |= await kill(set().union(*(traced(trace) for trace in traces)))
    if left:
        raise LabError(f"{directory}: process {min(one.pid for one in left)} of an earlier start can't be ended; end it by hand")


async def clear(directory: Path) -> None:
    """End what a supervisor of the directory left, and remove its socket and its record."""
    traces = [Trace(directory / "log" / f"{name}.log", postgres_words(directory) if name == "database" else ()) for name in SERVICES]
    await end_survivors(directory, traces)
    for data in ("data", "data.new"):
        remove_left(directory / "postgres" / data)
    records_path(directory).unlink(missing_ok=True)
    if description_path(directory).exists():
        remove_socket(load(directory))


def remove_socket(lab: LabDescription) -> None:
    """Remove the control socket, and its folder where that was made for it."""
    lab.control.unlink(missing_ok=True)
    folder = lab.control.parent
    if folder != lab.directory and folder.name.startswith(SOCKET_FOLDER_PREFIX) and folder.exists():
        folder.rmdir()


@contextlib.contextmanager
def locked(directory: Path, remedy: str | None = None) -> Iterator[None]:
    """Hold the directory; LabError with the remedy when a supervisor does. The kernel lets go of it however the process ends."""
    with (directory / "supervisor.lock").open("w") as lock:
        # One that was killed this moment may hold it until the last of its threads is gone.
        patience_ends = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > patience_ends:
                    remedy = remedy or f"end it with `python -m compose.lab down --directory {directory}`"
                    raise LabError(f"{directory}: a lab is up here already; {remedy}") from error
            time.sleep(0.02)
        yield
