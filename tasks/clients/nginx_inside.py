"""The processes of an Nginx in a container, read by a command that runs inside it.

From outside they can't be read where the container belongs to another user or another PID namespace. Inside, root may not look into the
workers' descriptors either (that takes CAP_SYS_PTRACE), so their connections are counted in the kernel's table of the container.
"""

import re
import signal
from dataclasses import replace

from tasks.clients.nginx_processes import (
    MASTER_TITLE,
    WORKER_TITLE,
    Identity,
    Invocation,
    Processes,
    parse_open_files,
    parse_stat,
    parse_title,
    worker_of,
)
from tasks.clients.runtime import Inside
from tasks.core.errors import NotApplicable, ToolFailed

SCRIPT = r"""
for p in /proc/[0-9]*; do
  t=$(tr "\\0" " " <"$p/cmdline") 2>/dev/null || continue
  case "$t" in
    "nginx: master"* | "nginx: worker"*)
      echo "process ${p#/proc/} $t"
      cat "$p/stat"
      grep "^Max open files" "$p/limits" || echo ;;
  esac
done
printf "established "
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -c "^ *[0-9]*: [0-9A-F:]* [0-9A-F:]* 01 "
exit 0
"""
_CONF_PATH = re.compile(r"--conf-path=(\S+)")


async def read_inside(runtime: Inside) -> tuple[Processes, str] | None:
    """The processes and the master's title; None where no Nginx runs there or the container has no shell."""
    try:
        code, output = await runtime.run(["sh", "-c", SCRIPT])
    except (NotApplicable, ToolFailed):
        return None
    return parse_inside(output) if code == 0 else None


def parse_inside(output: str) -> tuple[Processes, str] | None:
    """What SCRIPT printed, as processes."""
    titles: dict[int, str] = {}
    stats: dict[int, tuple[str, int]] = {}
    limits: dict[int, tuple[int, int] | None] = {}
    established: int | None = None
    lines = output.splitlines()
    for position, line in enumerate(lines):
        word, _, rest = line.partition(" ")
        if word == "established" and rest.strip().isdigit():
            established = int(rest)
        elif word == "process" and position + 2 < len(lines):
            pid, _, title = rest.partition(" ")
            titles[int(pid)] = title.strip()
            stats[int(pid)], limits[int(pid)] = parse_stat(lines[position + 1]), parse_open_files(lines[position + 2])
    masters = [pid for pid, title in titles.items() if title.startswith(MASTER_TITLE)]
    if not masters:
        return None
    master = min(masters)
    workers = [
        worker_of(pid, title, stats[pid], None, limits[pid]) for pid, title in sorted(titles.items()) if title.startswith(WORKER_TITLE)
    ]
    found = Processes((master, stats[master][1]), tuple(workers), limits[master], connections=established, is_inside=True)
    return found, titles[master]


async def read_inside_invocation(runtime: Inside, title: str) -> Invocation:
    """How the master was started, with the configuration that its binary was built for where its options name none."""
    program = title.removeprefix(MASTER_TITLE).split(" -")[0].strip() or "nginx"
    invocation = parse_title(title, program, "/")
    if invocation.config is not None:
        return invocation
    _, output = await runtime.run([program, "-V"])
    built_in = _CONF_PATH.search(output)
    return replace(invocation, config=built_in[1] if built_in else None)


async def signal_inside(runtime: Inside, identity: Identity, number: signal.Signals) -> None:
    """Signal one process of the container; NotApplicable where it is gone."""
    code, output = await runtime.run(["sh", "-c", f"kill -{int(number)} {identity[0]}"])
    if code != 0:
        raise NotApplicable(f"nginx: process {identity[0]} can't be signalled inside its container: {output.strip()[:200]}")
