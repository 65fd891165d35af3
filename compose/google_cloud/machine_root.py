"""The root of a simulated machine: a small disk of its own, this machine's programs, read-only, and nothing else of its files."""

import ctypes
import os
import struct
import sys
from pathlib import Path

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
SYS_MOUNT_SETATTR = 442
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc")
WRITABLE = ("home", "tmp", "run", "var", "var/log", "var/tmp", "opt", "root", "srv")
SHOWN = tuple(dict.fromkeys(Path(path).resolve() for path in (sys.base_prefix, sys.prefix)))
"""Where this Python is, which its SSH server may need."""
OWN = Path("/opt/guest")
"""Programs and files that the machine alone has."""

_libc = ctypes.CDLL(None, use_errno=True)


def make_root(root: Path, disk_mib: int, shared_memory_mib: int) -> None:
    """Make the calling process's root such a one, in its own mount namespace, where it has the rights of an administrator. OSError."""
    mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    mount("disk", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk_mib}m,mode=755")
    for name in WRITABLE:
        (root / name).mkdir()
    for name in PROGRAMS:
        original = Path("/", name)
        if original.is_symlink():
            (root / name).symlink_to(original.readlink())
        elif original.exists():
            _show(original, root)
    for original in SHOWN:
        if original.parts[1] not in PROGRAMS:
            _show(original, root)
    _show(Path("/dev"), root)
    mount("shm", root / "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"size={shared_memory_mib}m")
    (root / "proc").mkdir()
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def mount(source: str | Path | None, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2); OSError."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def give_up_rights() -> None:
    """What this process starts from now on has no administrator's rights; itself keeps them."""
    _check(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl")


def _show(original: Path, root: Path) -> None:
    """A directory of this machine at the same place, read-only."""
    place = root / original.relative_to("/")
    place.mkdir(parents=True, exist_ok=True)
    mount(original, place, None, MS_BIND | MS_REC)
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    done = _libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(place), AT_RECURSIVE, attributes, len(attributes))
    _check(done, f"read-only {original}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
