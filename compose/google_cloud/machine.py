"""A virtual machine of the simulator: namespaces of this machine's kernel, with a size, a disk and an SSH server of their own.

It needs no root: a user namespace gives the first process the rights to make the others. Whatever its processes do, they see no file of
this machine that is not a program, write to no disk but theirs, and end with the simulator.
"""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh

from compose.description import LabError, Login
from compose.google_cloud.machine_init import Description
from compose.google_cloud.planes import MachineMeasures, PlaneFailed
from compose.processes import Identity, Trace, kill, traced
from compose.service import clean_environment

NAMESPACES = (
    *("unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps"),
    *("--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--"),
)
PROJECT = Path(__file__).resolve().parent.parent.parent
ANSWER_SECONDS = 30.0
READY_SECONDS = 20.0
READY_POLL_SECONDS = 0.02
PROBE_SECONDS = 10.0


@cache
def _openssh() -> str | None:
    """OpenSSH's server, where this machine has it."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Machine:
    """One machine. It is made when it is booted first, and then keeps its disk until `end`."""

    def __init__(
        self, directory: Path, address: tuple[str, int], *, cpus: int, memory_mib: int, disk_mib: int, boot_seconds: float = 0
    ) -> None:
        self.host, self.port = address
        self.user = "evenkeel"
        self._directory = directory
        self.log = directory / "machine.log"
        host_key, user_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = " ".join(host_key.export_public_key().decode().split()[:2])
        self.login = Login(username=self.user, password=user_key.export_private_key().decode())
        self._described = Description(
            name=directory.name,
            user=self.user,
            host=self.host,
            port=self.port,
            cpus=cpus,
            memory_mib=memory_mib,
            disk_mib=disk_mib,
            boot_seconds=boot_seconds,
            root=directory / "root",
            host_key=host_key.export_private_key().decode(),
            authorized_key=user_key.export_public_key().decode(),
            sshd=_openssh(),
        )
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._calling = asyncio.Lock()
        self._on = self._frozen = False
        self._measured: tuple[int, int] | None = None

    @property
    def running(self) -> bool:
        """Whether it runs; False also after a `poweroff` from within."""
        return self._on and self._process is not None and self._process.returncode is None

    async def boot(self) -> None:
        """Start it, and wait until its SSH server answers."""
        if self._process is None or self._process.returncode is not None:
            await self._make()
        await self._call("boot")
        self._on = True
        await self._serves()

    async def shutdown(self) -> None:
        """SIGTERM for all its processes, SIGKILL for what is left."""
        self._on = self._frozen = False
        if self._process is not None:
            await self._call("shutdown")

    async def reset(self) -> None:
        """SIGKILL for all its processes, and start again."""
        self._frozen = False
        if not self.running:
            await self.boot()
            return
        await self._call("reset")
        await self._serves()

    async def freeze(self) -> None:
        """Stop all its processes where they stand."""
        if not self.running:
            return
        await self._call("freeze")
        self._frozen = True

    async def thaw(self) -> None:
        """Let them go on."""
        if not self.running:
            return
        await self._call("thaw")
        self._frozen = False

    async def measure(self) -> MachineMeasures | None:
        """The metrics now; None while it is off or frozen."""
        if not self.running or self._frozen:
            return None
        found = await self._call("measure")
        wanted, total = self._measured or (0, 0)
        self._measured = (found["wanted"], found["total"])
        if found["total"] <= total:  # booted since
            wanted, total = 0, 0
        share = (found["wanted"] - wanted) / max(1, found["total"] - total)
        return {
            "cpu": min(1.0, max(0.0, share)),
            "memory_percent": found["memory_percent"],
            "disk_percent": found["disk_percent"],
        }

    async def end(self) -> None:
        """Leave nothing of it."""
        self._on = False
        if self._process is not None:
            if self._process.returncode is None:
                # Its first process can't be ended from within, and everything ends with it.
                self._process.kill()
                await self._process.wait()
            if self._reading is not None:
                await self._reading
            self._process = None
        left = await kill(await asyncio.to_thread(traced, Trace(self.log)))
        if left:
            raise PlaneFailed(f"{self._described.name}: process {_least(left)} can't be ended")

    async def _make(self) -> None:
        await self.end()
        self._described.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *NAMESPACES,
                *(sys.executable, "-m", "compose.google_cloud.machine_init"),
                cwd=self._directory,
                env=clean_environment({"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._answers = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(self._process))
        await self._call(json.dumps({**asdict(self._described), "root": str(self._described.root)}))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise PlaneFailed("the machine was started without pipes")
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "off" in answer:
                self._on = False
            else:
                await self._answers.put(answer)
        self._on = False
        await process.wait()
        await self._answers.put({"error": f"the machine has ended; read {self.log}"})

    async def _call(self, command: str) -> dict[str, Any]:
        """One command and its answer; PlaneFailed."""
        async with self._calling:
            process = self._process
            if process is None or process.stdin is None or process.returncode is not None:
                raise PlaneFailed(f"{self._described.name}: it does not exist")
            while not self._answers.empty():
                self._answers.get_nowait()
            with contextlib.suppress(ConnectionError):
                process.stdin.write(f"{command}\n".encode())
                await process.stdin.drain()
            try:
                async with asyncio.timeout(ANSWER_SECONDS + self._described.boot_seconds):
                    answer = await self._answers.get()
            except TimeoutError as error:
                raise PlaneFailed(f"{self._described.name}: no answer within {ANSWER_SECONDS:g} s; read {self.log}") from error
        if "error" in answer:
            raise PlaneFailed(f"{self._described.name}: {answer['error']}")
        return answer

    async def _serves(self) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _greets(self.host, self.port):  # noqa: ASYNC110 - another process, which sets no event here
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError as error:
            raise PlaneFailed(f"{self._described.name}: no SSH server after {READY_SECONDS:g} s; read {self.log}") from error


async def check_machines() -> None:
    """Whether this machine can run such ones; LabError with the remedy where it can't."""
    try:
        process = await asyncio.create_subprocess_exec(
            *NAMESPACES,
            *(sys.executable, "-c", "import ctypes, os, sys; sys.exit(ctypes.CDLL(None).mount(None, b'/', None, 278528, None))"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError as error:
        raise LabError("the simulator's machines need `unshare`; install util-linux 2.36 or newer") from error
    async with asyncio.timeout(PROBE_SECONDS):
        output, _ = await process.communicate()
    if process.returncode != 0:
        said = (output.decode(errors="replace").strip().splitlines() or [f"exit {process.returncode}"])[-1]
        raise LabError(
            f"the simulator's machines need user namespaces, which this machine refuses ({said}); allow them "
            "(sysctl user.max_user_namespaces=1000, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; "
            "in a container --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
        )


async def _greets(host: str, port: int) -> bool:
    """Whether an SSH server says who it is."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return (await reader.read(4)) == b"SSH-"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _least(identities: set[Identity]) -> int:
    return min(identity.pid for identity in identities)
