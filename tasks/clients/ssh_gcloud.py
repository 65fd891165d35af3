"""The same way into a machine by `gcloud compute ssh` with IAP: for organisations that allow no other. A second and more a command.

gcloud itself keeps the keys, checks the host and logs in, as the person or service account that it is set up for.
"""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import IO

from tasks.clients.polling import poll
from tasks.clients.ssh import CLOSE_SECONDS, LOOPBACK, RUN_SECONDS, SHELL, checked
from tasks.core.errors import OutcomeUnknown, ProbeBroken, Unreachable

TUNNEL_SECONDS = 15.0
MOST_COMPLAINTS = 4096
NO_CONNECTION = 255
"""The status with which ssh, and so gcloud, says that there was no connection, or that it broke."""


@dataclass
class GcloudSsh:
    """`gcloud compute ssh --tunnel-through-iap`: a process a script, and one for each forwarded port."""

    name: str
    """The resource, for messages."""
    instance: str
    project: str
    zone: Callable[[], Awaitable[str]]
    user: str | None = None
    """None: the one that gcloud or OS Login chooses."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _tunnels: dict[tuple[str, int], tuple[Process, int]] = field(default_factory=dict, init=False, repr=False)

    async def run(self, script: str, *, seconds: float = RUN_SECONDS) -> str:
        """See `Ssh.run`. That there was no connection can't be told from one that broke: both are OutcomeUnknown."""
        process = await self._gcloud("--command", SHELL, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(seconds):
                output, complaints = await process.communicate(script.encode())
        except TimeoutError as error:
            raise OutcomeUnknown(f"{self.name}: a script did not end within {seconds:g} s") from error
        finally:
            await _end(process)
        said = complaints.decode(errors="replace")
        if process.returncode == NO_CONNECTION:
            raise OutcomeUnknown(f"{self.name}: gcloud compute ssh got or kept no connection: {_last(said)}")
        return checked(self.name, process.returncode, output.decode(errors="replace"), said)

    async def forward(self, host: str, port: int) -> int:
        """See `Ssh.forward`."""
        wanted = host, port
        async with self._turn:
            process, local = self._tunnels.get(wanted, (None, 0))
            if process is not None and process.returncode is None:
                return local
            local = local or _free_port()
            target = f"{LOOPBACK}:{local}:{host}:{port}"
            forwarding = ("--", "-N", "-o", "ExitOnForwardFailure=yes", "-L", target)
            # A file, as nobody empties a pipe while the tunnel stands.
            with tempfile.TemporaryFile() as said:
                process = await self._gcloud(*forwarding, stdin=DEVNULL, stdout=DEVNULL, stderr=said)
                try:
                    await self._until_open(process, local, said)
                except BaseException:
                    await _end(process)
                    raise
            self._tunnels[wanted] = process, local
            return local

    async def close(self) -> None:
        """See `Ssh.close`."""
        async with self._turn:
            tunnels, self._tunnels = self._tunnels, {}
            await asyncio.gather(*(_end(process) for process, _ in tunnels.values()))

    async def _gcloud(self, *args: str, stdin: int, stdout: int, stderr: int | IO[bytes]) -> Process:
        program = shutil.which("gcloud")
        if program is None:
            raise ProbeBroken(f"{self.name}: cloud.ssh.by is gcloud, and no gcloud is on the PATH; install the Google Cloud CLI")
        where = self.instance if self.user is None else f"{self.user}@{self.instance}"
        chosen = (f"--project={self.project}", f"--zone={await self.zone()}", "--tunnel-through-iap", "--quiet")
        try:
            # A session of its own: gcloud starts ssh and a tunnel, which have to end with it.
            return await asyncio.create_subprocess_exec(
                program, "compute", "ssh", where, *chosen, *args, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise ProbeBroken(f"{self.name}: {program} can't be started ({error.strerror or error})") from error

    async def _until_open(self, process: Process, local: int, said: IO[bytes]) -> None:
        async def opened() -> bool | None:
            if process.returncode is not None:
                said.seek(0)
                complaints = said.read(MOST_COMPLAINTS).decode(errors="replace")
                raise Unreachable(f"{self.name}: gcloud compute ssh forwards no port: {_last(complaints)}")
            return await _accepts(local) or None

        if not await poll(opened, seconds=TUNNEL_SECONDS, every_seconds=0.1):
            raise Unreachable(f"{self.name}: gcloud compute ssh forwarded no port within {TUNNEL_SECONDS:g} s")


async def _end(process: Process) -> None:
    """End the process and all that it started; by force where it does not go."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await process.wait()
        except TimeoutError:
            continue


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _last(text: str) -> str:
    return " ".join(text.strip().splitlines()[-1:])[:200] or "it said nothing"
