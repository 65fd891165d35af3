"""The soak's processes by what they are, with memory, open files and descriptors; and whether each is gone at the end."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from compose.description import LabDescription, LabError
from compose.lab import states
from compose.processes import Identity, identify, is_alive

MIB = 1024 * 1024
SERVER, WORKER, RUNS, SUPERVISORS = "Prefect server", "worker", "flow runs", "supervisors"
PREFECT_DATABASE = "Prefect's database"
SELF = "the soak itself"


def of_lab(service: str) -> str:
    """The group of one of the lab's services."""
    return f"lab: {service}"


@dataclass(frozen=True)
class Group:
    """The processes of one kind, together."""

    processes: int
    memory_mib: float
    """Proportional: what several of them share counts once."""
    largest_mib: float
    """Of the largest one: what it takes in memory, shared parts included."""
    descriptors: int
    zombies: int


@dataclass
class Family:
    """Everything that this process started, whoever its parent is by now."""

    lab: LabDescription
    database: LabDescription
    """The lab of which Prefect's database is all that runs."""
    seen: set[Identity] = field(default_factory=set)

    def measure(self) -> dict[str, Group]:
        """Every group now. Blocks."""
        this = psutil.Process()
        family = [this, *this.children(recursive=True)]
        parents = {one.pid: parent for one in family if (parent := _parent(one)) is not None}
        roots = {this.pid: SELF, **self._roots(family)}
        members: dict[str, list[psutil.Process]] = {}
        for one in family:
            found = identify(one.pid)
            if found is not None and one.pid != this.pid:
                self.seen.add(found)
            members.setdefault(_group(one.pid, roots, parents), []).append(one)
        return {name: _measured(those) for name, those in sorted(members.items())}

    def left(self) -> list[str]:
        """What still runs of all that was ever seen, by command line. Blocks."""
        return [f"{one.pid} {_command(one.pid)}" for one in sorted(self.seen, key=lambda one: one.pid) if is_alive(one)]

    def _roots(self, family: Sequence[psutil.Process]) -> dict[int, str]:
        found: dict[int, str] = {}
        for one in family:
            words = _words(one.pid)
            if "compose.supervisor" in words:
                found[one.pid] = SUPERVISORS
            elif "prefect" in words and "start" in words:
                found[one.pid] = SERVER if "server" in words else WORKER
        for lab in (self.lab, self.database):
            with contextlib.suppress(LabError):
                running = {state["pid"]: of_lab(state["name"]) for state in states(lab) if state["pid"] is not None}
                found |= running if lab is self.lab else dict.fromkeys(running, PREFECT_DATABASE)
        return found


def _parent(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.ppid()
    return None


def _group(pid: int, roots: dict[int, str], parents: dict[int, int]) -> str:
    at = pid
    while at not in roots:
        if at not in parents:
            return SELF  # its parent has just ended
        at = parents[at]
    # What the worker starts are flow runs.
    return RUNS if roots[at] == WORKER and at != pid else roots[at]


def _measured(processes: Sequence[psutil.Process]) -> Group:
    memory = largest = 0.0
    descriptors = zombies = count = 0
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if one.status() == psutil.STATUS_ZOMBIE:
                zombies += 1
                continue
            resident = one.memory_info().rss / MIB
            shared_out = _proportional(one.pid)
            count += 1
            memory += resident if shared_out is None else shared_out
            largest = max(largest, resident)
            descriptors += one.num_fds()
    return Group(count, round(memory, 1), round(largest, 1), descriptors, zombies)


def _proportional(pid: int) -> float | None:
    """MiB of a process, what it shares divided among those that share it; None where the kernel does not say."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return None


def _words(pid: int) -> list[str]:
    return _command(pid).split()


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", errors="replace").strip()
    return ""


def files_below(directory: Path) -> Iterator[tuple[Path, int]]:
    """Every file and its size in bytes; those that go meanwhile are left out."""
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                yield path, path.stat().st_size
