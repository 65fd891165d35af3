"""Addresses of a simulated network: hosts below 127.0.0.0/8, so that every server has the port that Google gives it."""

import random
import socket
from collections.abc import Iterator

from compose.description import LabError

ATTEMPTS = 50
PORTS = (5432, 6379)


def free_network() -> Iterator[str]:
    """Addresses of one /24 of the loopback in which nobody listens, one after the other; LabError where this machine has none."""
    for _ in range(ATTEMPTS):
        network = f"127.{random.randrange(16, 250)}.{random.randrange(1, 250)}"
        if all(_is_free(f"{network}.{host}", port) for host in (2, 3, 4, 5) for port in PORTS):
            return (f"{network}.{host}" for host in range(2, 250))
    raise LabError("addresses: no free network below 127.0.0.0/8; the Google Cloud simulator needs Linux's loopback")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
