"""The way to a server's private address: directly, or through a machine of the same network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.errors import EvenkeelError

if TYPE_CHECKING:
    from tasks.clients.ssh import Ssh  # it takes half a second to load, which nobody without machines has to wait

LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class PrivateWay:
    """How a server that Google runs is talked to."""

    through: "Ssh | None" = None
    """None: it is reached directly."""
    machine: str = ""
    """Name of the machine's resource, for messages."""

    @property
    def said(self) -> str:
        """For messages: how values came here."""
        return f"through {self.machine}" if self.machine else "directly"

    async def to(self, host: str, port: int) -> tuple[str, int]:
        """Where the server's address is reached from here. Unreachable or ProbeBroken: there is no way; that says nothing of the server."""
        if self.through is None:
            return host, port
        return LOOPBACK, await self.through.forward(host, port)

    async def obstacle(self) -> str:
        """Why the silence of a server may be that of the machine in between; empty: the machine answers, so it is the server's own."""
        if self.through is None:
            return ""
        try:
            await self.through.run(":", seconds=LOOK_SECONDS)
        except EvenkeelError as error:
            return str(error)
        return ""
