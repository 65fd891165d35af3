"""What a simulated machine shows of itself in /proc: its own size, and the load of its own processes.

The files are small ones of its disk, mounted over the kernel's and written anew in place, every number in its own width: whoever reads one
while it is written sees lines of either state. (Not /proc/uptime: `ps` subtracts from it when a process was started, which is the host's
time; `btime` and the boot's id tell one boot from another.) A size in MiB or cores is the machine's; used is what its processes really use.
"""

import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from compose.google_cloud.machine_root import MS_BIND, OWN, mount

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
FILES = {name: Path("/proc", name) for name in ("stat", "meminfo", "loadavg", "sys/kernel/random/boot_id")}
LOADS = (60, 300, 900)


@dataclass
class Process:
    """One process of the machine, as the kernel counts it."""

    pid: int
    name: str
    running: bool
    ticks: int
    """Processor time in clock ticks, with that of its children that have ended."""
    waited: int
    """Nanoseconds in which it could have run and did not get a processor."""
    memory: int
    """Bytes of its own; files that it maps are the disk's."""


@dataclass
class Meters:
    """Counts since the last boot."""

    cpus: int
    memory_mib: int
    booted_at: float = field(default_factory=time.time)
    _started: float = field(default_factory=time.monotonic)
    _busy_before: int = 0
    _waited: dict[int, int] = field(default_factory=dict)
    _stolen: float = 0
    _loads: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    _updated: float = field(default_factory=time.monotonic)
    _base: int | None = None
    used: int = 0
    busy: int = 0
    total: int = 0

    def install(self) -> None:
        """Mount the files over the kernel's, once."""
        for name, path in FILES.items():
            file = OWN / "proc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            mount(file, path, None, MS_BIND)

    def boot(self) -> None:
        """Begin to count."""
        self.booted_at, self._started, self._updated = time.time(), time.monotonic(), time.monotonic()
        self._waited, self._stolen, self._loads, self._base = {}, 0, [0.0, 0.0, 0.0], None
        self.busy = self.total = 0
        _write("sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")

    def update(self, processes: list[Process]) -> None:
        """Count, and write the files."""
        now = time.monotonic()
        elapsed, seconds = now - self._started, now - self._updated
        self._updated = now
        spent = sum(process.ticks for process in processes)
        # What ended between two counts is in its parent's children's time.
        self._base = spent if self._base is None else min(self._base, spent)
        capacity = elapsed * TICKS * self.cpus
        self.busy = int(min(capacity, max(self.busy, spent - self._base)))
        waited = sum(max(0, process.waited - self._waited.get(process.pid, process.waited)) for process in processes)
        self._waited = {process.pid: process.waited for process in processes}
        # A processor that somebody had who is not of this machine is what a hypervisor calls stolen.
        self._stolen = min(capacity - self.busy, self._stolen + min(waited / 1e9, seconds * self.cpus) * TICKS)
        self.total = int(capacity)
        running = sum(process.running for process in processes if process.pid != 1)
        self._loads = [load + (running - load) * min(1.0, seconds / period) for load, period in zip(self._loads, LOADS, strict=True)]
        self.used = sum(process.memory for process in processes)
        self._write_all(running, len(processes), max(process.pid for process in processes))

    def cpu_ticks(self) -> tuple[int, int]:
        """Ticks in which a processor was wanted, and all."""
        return self.busy + int(self._stolen), self.total

    def memory_percent(self) -> float:
        """Share of the memory that is used, 0-100."""
        return min(100.0, 100 * self.used / (self.memory_mib << 20))

    def _write_all(self, running: int, count: int, last_pid: int) -> None:
        idle = max(0, self.total - self.busy - int(self._stolen))
        line = "{name} {busy:>9} 0 0 {idle:>9} 0 0 0 {stolen:>9} 0 0\n"
        lines = [line.format(name="cpu ", busy=self.busy, idle=idle, stolen=int(self._stolen))]
        for number in range(self.cpus):
            share = {"busy": self.busy // self.cpus, "idle": idle // self.cpus, "stolen": int(self._stolen) // self.cpus}
            lines.append(line.format(name=f"cpu{number}", **share))
        lines.append(f"intr 0\nctxt 0\nbtime {int(self.booted_at)}\nprocesses {last_pid:>7}\nprocs_running {running:>5}\nprocs_blocked 0\n")
        _write("stat", "".join(lines))
        disk = os.statvfs("/")
        cached = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        total = self.memory_mib << 20
        available = max(0, total - self.used)
        free = max(0, available - cached)
        sizes = {"MemTotal": total, "MemFree": free, "MemAvailable": available, "Buffers": 0, "Cached": min(cached, available)}
        sizes |= {"SwapCached": 0, "Active": self.used, "Inactive": 0, "SwapTotal": 0, "SwapFree": 0, "Dirty": 0, "Writeback": 0}
        sizes |= {"AnonPages": self.used, "Mapped": 0, "Shmem": 0, "SReclaimable": 0, "SUnreclaim": 0}
        _write("meminfo", "".join(f"{name + ':':<16}{size >> 10:>8} kB\n" for name, size in sizes.items()))
        _write("loadavg", f"{' '.join(f'{load:>6.2f}' for load in self._loads)} {running:>4}/{count:<4} {last_pid:>7}\n")


def processes() -> list[Process]:
    """Every process of this PID namespace."""
    found = (_process(entry) for entry in os.scandir("/proc") if entry.name.isdecimal())
    return [process for process in found if process is not None]


def _process(entry: os.DirEntry[str]) -> Process | None:
    try:
        text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        waited = int(Path(entry.path, "schedstat").read_text(encoding="ascii").split()[1])
        # size, resident, shared: what is resident and not shared with a file.
        _, resident, shared, *_ = Path(entry.path, "statm").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, state, fields = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2], text[text.rindex(")") + 2 :].split()
    ticks = sum(int(number) for number in fields[11:15])
    return Process(int(entry.name), name, state == "R", ticks, waited, max(0, int(resident) - int(shared)) * PAGE)


def _write(name: str, text: str) -> None:
    with (OWN / "proc" / name).open("r+b") as file:
        file.write(text.encode())
        file.truncate()
