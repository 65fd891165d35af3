"""A real SSH server in a process of its own: it can be killed, frozen, and started again under another host key.

`python -m tests.tasks.ssh_under_test DIRECTORY PORT` is that server: it runs every command in a shell and forwards to any port.
"""

import asyncio
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from asyncio.subprocess import PIPE, create_subprocess_shell
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tasks.clients.login import Login

HOST, USER = "127.0.0.1", "keeper"
START_SECONDS = 30.0
SHOWN = "$(touch /tmp/never) `id` \\ \" '"
"""A text that a shell would take for more, were it quoted anywhere."""


@dataclass
class SshServer:
    """The server, its keys and the login it lets in."""

    directory: Path
    port: int
    login: Login = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        self.login = Login(USER, key.export_private_key().decode())
        (self.directory / "authorized_keys").write_bytes(key.export_public_key())
        self.new_host_key()

    @property
    def host_key(self) -> str:
        """The public host key, as the inventory declares it."""
        return (self.directory / "host_key.pub").read_text().strip()

    def new_host_key(self) -> None:
        """Another host key, from the next start on."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.directory / "host_key")
        key.write_public_key(self.directory / "host_key.pub")

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.tasks.ssh_under_test", str(self.directory), str(self.port)]
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the SSH server does not listen")

    def send(self, number: signal.Signals) -> None:
        """A signal to it."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: every connection breaks."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def ssh_server(directory: Path) -> Iterator[SshServer]:
    """A running server."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        server = SshServer(directory, probe.getsockname()[1])
    server.start()
    try:
        yield server
    finally:
        server.kill()


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def echo() -> Iterator[int]:
    """A server that answers each line with itself; its port on this machine."""
    with _EchoServer((HOST, 0), _Echo) as listening:
        serving = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            serving.join()


async def said(port: int) -> bytes:
    """What a server on this machine answers to `hello`."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(b"hello\n")
            return await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()


class _AnyForwarding(asyncssh.SSHServer):
    def connection_requested(self, *_: object) -> bool:
        return True


async def _run(client: asyncssh.SSHServerProcess[bytes]) -> None:
    """The command in a shell, its three streams connected."""
    shell = await create_subprocess_shell(client.command or "exit 1", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    await client.redirect(stdin=shell.stdin, stdout=shell.stdout, stderr=shell.stderr)
    client.exit(await shell.wait())


async def _serve(directory: Path, port: int) -> None:
    await asyncssh.listen(
        HOST,
        port,
        server_factory=_AnyForwarding,
        server_host_keys=[str(directory / "host_key")],
        authorized_client_keys=str(directory / "authorized_keys"),
        process_factory=_run,
        encoding=None,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
