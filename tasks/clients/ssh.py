"""A machine over SSH: scripts that run on it, and ports that are reached through it, over one kept connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import asyncssh
from asyncssh import SSHClientConnection, SSHKey, SSHListener

from tasks.clients.login import Login
from tasks.core.errors import OutcomeUnknown, ProbeBroken, ToolFailed, Unreachable

CONNECT_SECONDS = 5.0
RUN_SECONDS = 10.0
FORWARD_SECONDS = 3.0
CLOSE_SECONDS = 2.0
KEEPALIVE_SECONDS = 2.0
KEEPALIVES = 2
"""A machine that is silent for so many intervals is given up; what is open through it breaks then."""
SHELL = "bash -s"
LOOPBACK = "127.0.0.1"
LOST = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, OSError)
"""How asyncssh says that the connection, or the way through it, is gone."""


class Ssh(Protocol):
    """A way into a machine, and through it. Connected when first needed, and again after a loss; safe for concurrent use in one loop.

    Every method may raise Unreachable (no connection; nothing was sent) or ProbeBroken (the configuration is wrong: host key, login).
    """

    async def run(self, script: str, *, seconds: float = RUN_SECONDS) -> str:
        """What a shell script prints, sent to `bash -s` over its standard input so that it is quoted nowhere.

        OutcomeUnknown: the connection was lost or the time was up once it ran. ToolFailed: it ended with another status than 0; tells
        what it said last.
        """

    async def forward(self, host: str, port: int) -> int:
        """The local port (127.0.0.1) that leads to an address as the machine sees it. The same one as long as it can be kept."""

    async def close(self) -> None:
        """Close the connection and every forwarded port."""


@dataclass
class KeptSsh:
    """One connection to a machine, kept open. Nothing of `~/.ssh` and no agent is used: only what the inventory declares."""

    name: str
    """The resource, for messages."""
    address: Callable[[], Awaitable[str]]
    """Asked for each connection: a machine that was stopped comes back with another address."""
    port: int
    host_keys: tuple[str, ...]
    login: Login
    """The password is the private key, in OpenSSH's format."""
    connect_seconds: float = CONNECT_SECONDS
    keepalive_seconds: float = KEEPALIVE_SECONDS
    _connection: SSHClientConnection | None = field(default=None, init=False, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)
    _listeners: dict[tuple[str, int], SSHListener] = field(default_factory=dict, init=False, repr=False)
    _ports: dict[tuple[str, int], int] = field(default_factory=dict, init=False, repr=False)

    async def run(self, script: str, *, seconds: float = RUN_SECONDS) -> str:
        """See `Ssh.run`."""
        deadline = _now() + seconds
        process = await self._shell(deadline)
        try:
            # A connection that breaks while the script is read may leave it half read: that is an outcome nobody knows.
            async with asyncio.timeout_at(deadline):
                done = await process.communicate(script)
        except TimeoutError as error:
            raise OutcomeUnknown(f"{self.name}: a script did not end within {seconds:g} s") from error
        except LOST as error:
            raise OutcomeUnknown(f"{self.name}: the connection was lost while a script ran: {_words(error)}") from error
        finally:
            process.close()
        if process.returncode is None and process.exit_signal is None:
            raise OutcomeUnknown(f"{self.name}: the connection was lost while a script ran")
        return checked(self.name, process.returncode, str(done[0] or ""), str(done[1] or ""))

    async def forward(self, host: str, port: int) -> int:
        """See `Ssh.forward`."""
        wanted = host, port
        connection = await self._connected(_now() + self.connect_seconds)
        async with self._turn:
            if wanted not in self._listeners:
                self._listeners[wanted] = await self._listening(connection, wanted)
            return self._listeners[wanted].get_port()

    async def close(self) -> None:
        """See `Ssh.close`."""
        async with self._turn:
            await self._drop()

    async def _shell(self, deadline: float) -> asyncssh.SSHClientProcess[str]:
        """A shell that waits for its script. Nothing has been sent before, so a kept connection that turns out to be gone is replaced."""
        for is_last in (False, True):
            connection = await self._connected(deadline)
            try:
                async with asyncio.timeout_at(min(deadline, _now() + self.connect_seconds)):
                    return await connection.create_process(SHELL)
            except TimeoutError as error:
                # It may be busy, and carry the work of others: that it is gone is for the keepalive to find out.
                raise Unreachable(f"{self.name}: no shell over SSH in time") from error
            except LOST as error:
                await self._forget(connection)
                if is_last:
                    raise Unreachable(f"{self.name}: no shell over SSH: {_words(error)}") from error
        raise AssertionError("the last round returns or raises")

    async def _listening(self, connection: SSHClientConnection, wanted: tuple[str, int]) -> SSHListener:
        """A forwarded port; after a reconnection the one of before, where nobody has taken it meanwhile."""
        for local in dict.fromkeys((self._ports.get(wanted, 0), 0)):
            try:
                async with asyncio.timeout(FORWARD_SECONDS):
                    listener = await connection.forward_local_port(LOOPBACK, local, *wanted)
            except (TimeoutError, *LOST) as error:
                if local == 0:
                    raise Unreachable(f"{self.name}: no way to {wanted[0]}:{wanted[1]} through it: {_words(error)}") from error
            else:
                self._ports[wanted] = listener.get_port()
                return listener
        raise AssertionError("the last round returns or raises")

    async def _connected(self, deadline: float) -> SSHClientConnection:
        try:
            async with asyncio.timeout_at(deadline), self._turn:
                if self._connection is None or self._connection.is_closed():
                    await self._drop()
                    self._connection = await self._open(min(deadline, _now() + self.connect_seconds))
                return self._connection
        except TimeoutError as error:
            raise Unreachable(f"{self.name}: no SSH connection in time") from error

    async def _open(self, deadline: float) -> SSHClientConnection:
        keys = trusted(self.name, self.host_keys)
        own = private_key(self.name, self.login)
        host = await self.address()
        refusal: Exception
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncssh.connect(
                    host,
                    self.port,
                    username=self.login.username,
                    client_keys=[own],
                    known_hosts=(keys, [], []),
                    config=None,
                    agent_path=None,
                    preferred_auth="publickey",
                    gss_host=None,
                    keepalive_interval=self.keepalive_seconds,
                    keepalive_count_max=KEEPALIVES,
                )
        except asyncssh.HostKeyNotVerifiable as error:
            refusal = ProbeBroken(
                f"{self.name}: {host}:{self.port} shows a host key that cloud.ssh.host_keys does not name ({_words(error)}): find out "
                "whether the machine was made anew or is another one, before you declare its key"
            )
        except asyncssh.PermissionDenied:
            refusal = ProbeBroken(
                f"{self.name}: {host}:{self.port} refuses {self.login.username} with the key of logins.monitor; allow its public key"
            )
        except TimeoutError:
            refusal = Unreachable(f"{self.name}: no SSH connection to {host}:{self.port} in time")
        except LOST as error:
            refusal = Unreachable(f"{self.name}: no SSH connection to {host}:{self.port}: {_words(error)}")
        # Raised here, so that no trace of asyncssh's frames, which hold the private key, goes along.
        raise refusal

    async def _forget(self, connection: SSHClientConnection) -> None:
        async with self._turn:
            if self._connection is connection:
                await self._drop()

    async def _drop(self) -> None:
        """Close what is kept; the machine is given a moment to say goodbye."""
        connection, self._connection = self._connection, None
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.close()
        if connection is None:
            return
        connection.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort()


def trusted(name: str, host_keys: Sequence[str]) -> list[SSHKey]:
    """The declared public host keys; ProbeBroken names one that can't be read."""
    keys = []
    for text in host_keys:
        try:
            keys.append(asyncssh.import_public_key(text))
        except asyncssh.KeyImportError as error:
            raise ProbeBroken(f"{name}: cloud.ssh.host_keys: {text[:40]!r} can't be read ({error})") from error
    return keys


def private_key(name: str, login: Login) -> SSHKey:
    """The private key that stands in the login; ProbeBroken where it is none, or needs a passphrase."""
    try:
        return asyncssh.import_private_key(login.password)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        why = _words(error)
    raise ProbeBroken(f"{name}: logins.monitor: its password is no private key without a passphrase, as ssh-keygen writes it ({why})")


def checked(name: str, status: int | None, output: str, complaints: str) -> str:
    """The output of a script that ended well; else ToolFailed with what it said last."""
    if status == 0:
        return output
    last = " ".join((complaints.strip() or output.strip()).splitlines()[-1:])[:200]
    raise ToolFailed(f"{name}: a script ended with status {status}: {last or 'it said nothing'}")


def _words(error: BaseException) -> str:
    text = getattr(error, "reason", "") or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__


def _now() -> float:
    return asyncio.get_running_loop().time()
