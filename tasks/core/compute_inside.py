"""What a Linux machine tells of itself: one script, and the figures in its answer. Pure."""

import re
from dataclasses import dataclass

from pydantic import JsonValue

MARK = "@@"
KIB_PER_MIB = 1024


@dataclass(frozen=True)
class CpuTicks:
    """Counts of /proc/stat since the boot that `boot_id` names."""

    boot_id: str
    wanted: int
    """In which a processor was used, or wanted and had by another machine (steal)."""
    total: int


@dataclass(frozen=True)
class Inside:
    """One answer of the script."""

    ticks: tuple[CpuTicks, ...]
    """The oldest first."""
    boot_id: str
    booted_at: int
    """Seconds since the epoch."""
    values: dict[str, JsonValue]
    """memory_percent, memory_used_mib, memory_total_mib, disk_percent, largest."""


class NotUnderstood(ValueError):
    """The answer is not what the script prints."""


def script(sample_seconds: float) -> str:
    """The script for `bash -s`; it samples the processors twice, so many seconds apart, or once for 0."""
    again = f"sleep {sample_seconds:g}; grep '^cpu ' /proc/stat\n" if sample_seconds else ""
    return f"""export LC_ALL=C
grep '^cpu ' /proc/stat
{again}echo {MARK}boot; cat /proc/sys/kernel/random/boot_id; grep '^btime ' /proc/stat
echo {MARK}memory; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
echo {MARK}disk; df -P / | tail -n 1
echo {MARK}largest; ps -eo rss=,pid=,comm= --sort=-rss | head -n 3
"""


def understood(answer: str) -> Inside:
    """What the script said; NotUnderstood where that is not it."""
    ticks_text, *rest = answer.split(MARK)
    parts = {name: text for name, _, text in (part.partition("\n") for part in rest)}
    try:
        boot_id, btime = parts["boot"].split("\n")[:2]
        memory = {name: int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", parts["memory"], re.MULTILINE)}
        total, available = memory["MemTotal"], memory["MemAvailable"]
        _, _, disk_used, disk_free, *_ = parts["disk"].split()
        used, free = int(disk_used), int(disk_free)
        ticks = tuple(_ticks(boot_id.strip(), line) for line in ticks_text.splitlines() if line.startswith("cpu "))
        booted_at = int(btime.split()[1])
        largest: list[JsonValue] = [_process(line) for line in parts["largest"].splitlines() if line.strip()]
    except (KeyError, ValueError, IndexError) as error:
        raise NotUnderstood(f"the machine's answer is not understood: {answer[:200]!r}") from error
    values: dict[str, JsonValue] = {
        "memory_percent": round(100 * (total - available) / total, 1) if total else None,
        "memory_used_mib": round((total - available) / KIB_PER_MIB),
        "memory_total_mib": round(total / KIB_PER_MIB),
        "disk_percent": round(100 * used / (used + free), 1) if used + free else None,
        "largest": largest,
    }
    return Inside(ticks, boot_id.strip(), booted_at, values)


def cpu_percent(before: CpuTicks, after: CpuTicks) -> float | None:
    """Share of the processors that was wanted between the two; None across a boot, or where no time has passed."""
    if before.boot_id != after.boot_id or after.total <= before.total:
        return None
    return round(min(100 * (after.wanted - before.wanted) / (after.total - before.total), 100), 1)


def _ticks(boot_id: str, line: str) -> CpuTicks:
    # user nice system idle iowait irq softirq steal; what guests use is in user already.
    counts = [int(word) for word in line.split()[1:9]]
    idle = counts[3] + counts[4]
    return CpuTicks(boot_id, sum(counts) - idle, sum(counts))


def _process(line: str) -> str:
    """Such as `python3 (812) 190 MiB`."""
    kib, pid, name = line.split(None, 2)
    return f"{name.strip()[:40]} ({pid}) {round(int(kib) / KIB_PER_MIB)} MiB"
