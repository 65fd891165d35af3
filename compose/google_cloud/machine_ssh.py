"""The SSH server of a simulated machine that has no OpenSSH: a program of its own, which runs inside and knows nothing of the simulator.

`python machine_ssh.py HOST PORT HOST_KEY AUTHORIZED_KEYS`: sessions run their commands really, and connections are forwarded.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable

import asyncssh

CHUNK = 65_536
SHELL = "/bin/sh"
ENDED_BY_SIGNAL = 128


class _Server(asyncssh.SSHServer):
    """Any address may be reached through it, as through a machine of the same network."""

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def _session(process: asyncssh.SSHServerProcess[bytes]) -> None:
    command = (SHELL, "-c", process.command) if process.command else (SHELL, "-l")
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise RuntimeError("the command was started without pipes")
    feeding = asyncio.create_task(_feed(process, child.stdin))
    await asyncio.gather(_copy(child.stdout.read, process.stdout), _copy(child.stderr.read, process.stderr))
    code = await child.wait()
    feeding.cancel()
    with contextlib.suppress(OSError):
        process.exit(code if code >= 0 else ENDED_BY_SIGNAL - code)


async def _feed(process: asyncssh.SSHServerProcess[bytes], stdin: asyncio.StreamWriter) -> None:
    """What the client sends, until it ends its input or is gone."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await process.stdin.read(CHUNK):
            stdin.write(data)
            await stdin.drain()
    stdin.close()


async def _copy(read: Callable[[int], Awaitable[bytes]], out: asyncssh.SSHWriter[bytes]) -> None:
    """What the command says, to its end; for nobody where the client is gone."""
    while data := await read(CHUNK):
        with contextlib.suppress(OSError):
            out.write(data)
            await out.drain()


async def _serve(host: str, port: int, host_key: str, authorized_keys: str) -> None:
    server = await asyncssh.create_server(
        _Server,
        host,
        port,
        reuse_address=True,
        server_host_keys=[host_key],
        authorized_client_keys=authorized_keys,
        process_factory=_session,
        encoding=None,
        line_editor=False,
        agent_forwarding=False,
    )
    await server.wait_closed()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
