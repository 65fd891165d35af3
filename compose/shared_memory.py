"""The System V shared memory that a killed PostgreSQL leaves: the kernel keeps it until somebody removes it."""

import ctypes
import os
from pathlib import Path

IPC_RMID = 0


def remove_left(data: Path) -> None:
    """Remove the segment that a data directory's postmaster.pid names, where no process is attached to it any more.

    The file's seventh line has the segment's key and number; a server that stops by itself removes segment and file.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        segments = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:
        return
    named = lines[6].split() if len(lines) > 6 else []
    for segment in segments:
        key, number, _permissions, _size, _creator, _last, attached, owner, *_ = segment.split()
        if [key, number] == named and attached == "0":
            _remove(int(number), int(owner))


def _remove(number: int, owner: int) -> None:
    """Only its owner may remove a segment; root without all its rights, as in a container, has to become that user."""
    user = os.geteuid()
    if owner != user and user != 0:
        return
    os.seteuid(owner)
    try:
        ctypes.CDLL(None).shmctl(number, IPC_RMID, None)
    finally:
        os.seteuid(user)
