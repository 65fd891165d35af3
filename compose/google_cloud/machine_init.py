"""The first process of a simulated machine: makes its root, runs its SSH server, keeps its meters, and turns it off and on.

The simulator writes commands to its standard input, one a line, and reads a JSON object for each from its standard output; `{"off": true}`
comes by itself where the machine was turned off from within. When the input ends, it ends, and the kernel ends everything in the machine.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from compose.google_cloud.machine_meters import Meters, Process, processes
from compose.google_cloud.machine_root import MS_BIND, OWN, SHOWN, give_up_rights, make_root, mount

TICK_SECONDS = 0.1
TERM_SECONDS = 2.0
KILL_SECONDS = 5.0
SSH_SECONDS = 1.0
"""An SSH server that ends sooner did not start."""
USER_NUMBER = 1000
NICE = 5
SWITCH = OWN / "switch"
"""Whoever writes `reboot` or `poweroff` into it has pressed that button."""
SEARCH_PATH = f"{OWN}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The programs of an ordinary machine that can't work here, as far as somebody who looks after it calls them.
SCRIPTS = {
    "sudo": 'while [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n',
    "reboot": f"echo reboot >{SWITCH}\n",
    "poweroff": f"echo poweroff >{SWITCH}\n",
    "shutdown": f'case " $* " in *" -r "*) echo reboot >{SWITCH};; *) echo poweroff >{SWITCH};; esac\n',
    "systemctl": f'case "$1" in reboot|poweroff) echo "$1" >{SWITCH};; *) echo "Unit $2 not found." >&2; exit 5;; esac\n',
}


@dataclass(frozen=True)
class Description:
    """What the machine is, from the simulator."""

    name: str
    user: str
    host: str
    port: int
    cpus: int
    memory_mib: int
    disk_mib: int
    boot_seconds: float
    root: Path
    host_key: str
    authorized_key: str
    sshd: str | None


class Machine:
    """Off at first."""

    def __init__(self, described: Description) -> None:
        self._described = described
        self._meters = Meters(described.cpus, described.memory_mib)
        self._ssh: subprocess.Popen[bytes] | None = None
        self._on = False
        self._frozen = False
        self._switch = -1
        self._seen: set[int] = set()
        self._sshd = described.sshd
        self._ssh_started = 0.0

    def build(self) -> None:
        """Make everything that lasts longer than one boot."""
        described = self._described
        own_script = Path(__file__).with_name("machine_ssh.py").read_text(encoding="utf-8")
        make_root(described.root, described.disk_mib, described.memory_mib // 2)
        (OWN / "bin").mkdir(parents=True)
        for name, script in SCRIPTS.items():
            self._put(f"bin/{name}", f"#!/bin/sh\n{script}", 0o755)
        (OWN / "bin/python3").symlink_to(sys.executable)
        self._put("ssh_server.py", own_script)
        self._put("host_key", described.host_key, 0o600)
        self._put("authorized_keys", described.authorized_key, 0o600)
        home = Path("/home", described.user)
        home.mkdir(exist_ok=True)
        for name, line in (("passwd", f"{USER_NUMBER}:{USER_NUMBER}::{home}:/bin/sh"), ("group", f"{USER_NUMBER}:")):
            self._put(name, f"{described.user}:x:{line}\n", 0o644)
            mount(OWN / name, Path("/etc", name), None, MS_BIND)
        self._meters.install()
        os.mkfifo(SWITCH, 0o600)
        # Open for writing as well, or it would be at its end between two writers.
        self._switch = os.open(SWITCH, os.O_RDWR | os.O_NONBLOCK)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: described.cpus])
        socket.sethostname(described.name)
        give_up_rights()

    def run(self, commands: FileIO) -> None:
        """Serve until the input ends."""
        pending = b""
        while True:
            ready, _, _ = select.select([commands.fileno(), self._switch], [], [], TICK_SECONDS)
            if self._switch in ready:
                self._pressed(os.read(self._switch, 4096).decode(errors="replace").split())
            if commands.fileno() in ready:
                data = commands.read(4096)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._answer(line.decode())
            self._tick()

    def _answer(self, command: str) -> None:
        answers: dict[str, Any] = {}
        match command:
            case "boot":
                self._boot()
            case "shutdown":
                self._end(TERM_SECONDS)
            case "reset":
                self._end(0)
                self._boot()
            case "freeze" | "thaw":
                self._frozen = command == "freeze"
                self._to_all(signal.SIGSTOP if self._frozen else signal.SIGCONT)
            case "measure":
                wanted, total = self._meters.cpu_ticks()
                disk = os.statvfs("/")
                answers = {"wanted": wanted, "total": total, "memory_percent": self._meters.memory_percent()}
                answers["disk_percent"] = 100 * (disk.f_blocks - disk.f_bavail) / disk.f_blocks
            case _:
                answers = {"error": f"no command {command!r}"}
        _say({"done": command, **answers})

    def _pressed(self, buttons: list[str]) -> None:
        for button in buttons:
            if not self._on:
                return
            if button in {"reboot", "poweroff"}:
                self._end(TERM_SECONDS)
            if button == "reboot":
                self._boot()
            elif button == "poweroff":
                _say({"off": True})

    def _boot(self) -> None:
        if self._on:
            return
        time.sleep(self._described.boot_seconds)
        for left in Path("/tmp").iterdir():  # noqa: S108 - the machine's own
            if any(path.is_relative_to(left) for path in SHOWN):
                continue
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        self._meters.boot()
        self._on, self._frozen = True, False
        self._start_ssh()

    def _end(self, grace_seconds: float) -> None:
        """End everything but this process: first politely, for so long, then by force."""
        self._on = self._frozen = False
        if grace_seconds:
            self._to_all(signal.SIGTERM)
            self._to_all(signal.SIGCONT)
            self._await_end(grace_seconds)
        self._to_all(signal.SIGKILL)
        self._await_end(KILL_SECONDS)
        self._ssh = None

    def _await_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            _reap()
            if len(processes()) == 1:
                return
            time.sleep(TICK_SECONDS / 10)

    def _tick(self) -> None:
        _reap()
        if not self._on:
            return
        found = processes()
        self._meters.update(found)
        self._yield_to_others(found)
        if self._frozen:
            return
        if self._ssh is not None and all(process.pid != self._ssh.pid for process in found):
            if time.monotonic() - self._ssh_started < SSH_SECONDS:
                # It does not work as an ordinary user here; the other one does.
                self._sshd = None
            self._start_ssh()
        elif self._meters.used > self._described.memory_mib << 20:
            self._out_of_memory(found)

    def _yield_to_others(self, found: list[Process]) -> None:
        """What runs in the machine lets its host go first; only its own first process and SSH server do not have to wait."""
        known, self._seen = self._seen, {process.pid for process in found}
        for pid in self._seen - known - {1, self._ssh.pid if self._ssh else 1}:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, pid, NICE)

    def _out_of_memory(self, found: list[Process]) -> None:
        """What the kernel does: the largest goes. The SSH server is spared, as everywhere."""
        spared = {1, self._ssh.pid if self._ssh else 1}
        largest = max((process for process in found if process.pid not in spared), key=lambda process: process.memory, default=None)
        if largest is not None:
            print(
                f"Out of memory: Killed process {largest.pid} ({largest.name}) anon-rss:{largest.memory >> 10}kB",
                file=sys.stderr,
                flush=True,
            )
            os.kill(largest.pid, signal.SIGKILL)

    def _start_ssh(self) -> None:
        described = self._described
        address = (described.host, str(described.port))
        command = [sys.executable, str(OWN / "ssh_server.py"), *address, str(OWN / "host_key"), str(OWN / "authorized_keys")]
        self._ssh_started = time.monotonic()
        if self._sshd is not None:
            settings = (
                f"ListenAddress={described.host}:{described.port}",
                f"HostKey={OWN / 'host_key'}",
                f"AuthorizedKeysFile={OWN / 'authorized_keys'}",
                f"SetEnv=PATH={SEARCH_PATH}",
                "PidFile=none",
                "StrictModes=no",
                "UsePAM=no",
                "PasswordAuthentication=no",
                "AllowTcpForwarding=yes",
                "PrintMotd=no",
            )
            command = [self._sshd, "-D", "-e", "-f", "/dev/null", *(word for setting in settings for word in ("-o", setting))]
        environment = {"PATH": SEARCH_PATH, "HOME": f"/home/{described.user}", "USER": described.user, "LANG": "C.UTF-8"}
        self._ssh = subprocess.Popen(
            command, cwd=environment["HOME"], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )

    @staticmethod
    def _to_all(number: signal.Signals) -> None:
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return

    @staticmethod
    def _put(name: str, text: str, mode: int = 0o644) -> None:
        path = OWN / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)


def _reap() -> None:
    """What has lost its parent is the first process's."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> int:
    """Run the machine that the first line of the input describes; return the exit status."""
    # Without a buffer, which would take in more than is asked for.
    commands = FileIO(0)
    values = json.loads(commands.readline())
    machine = Machine(Description(**{**values, "root": Path(values["root"])}))
    try:
        machine.build()
    except OSError as error:
        _say({"error": str(error)})
        return 1
    _say({"done": "build"})
    machine.run(commands)
    return 0


if __name__ == "__main__":
    sys.exit(main())
