"""The append-only file of a Redis server: how much of it can be read, and a repaired copy of it.

Its format: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ and the protocol's arrays of bulk strings. Since
Redis 7 a manifest names a base file and the increments after it; only the last increment is ever written to.
"""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tasks.core.errors import NotApplicable, ToolFailed

MANIFEST_SUFFIX = ".manifest"
LONGEST_LINE = 64
MOST_ARGUMENTS = 1024 * 1024
COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Repaired:
    """What a repair did."""

    path: Path
    broken: Path
    """The file as it was found."""
    size: int
    readable: int
    """Bytes up to the end of the last whole command; what came after them was left out."""

    def put_back(self) -> None:
        """Put the file as it was found in its place again."""
        self.broken.replace(self.path)


def last_increment(settings: Mapping[str, str]) -> Path:
    """The append-only file that the server was writing to, by its configuration (dir, appenddirname, appendfilename).

    NotApplicable where there is none, or it can't be reached from here. Blocks.
    """
    if not settings.get("dir", "").startswith("/"):
        raise NotApplicable("the configuration file says no absolute dir, so the append-only file can't be found")
    directory = Path(settings["dir"]) / settings.get("appenddirname", "appendonlydir")
    manifest = directory / (settings.get("appendfilename", "appendonly.aof") + MANIFEST_SUFFIX)
    try:
        lines = [line.split() for line in manifest.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise NotApplicable(f"{manifest}: can't be read here ({error.strerror})") from error
    # file NAME seq NUMBER type KIND; b is the base, i an increment, h history.
    increments = [words[1] for words in lines if len(words) >= 6 and words[0] == "file" and words[5] == "i"]
    if not increments or "/" in increments[-1]:
        raise NotApplicable(f"{manifest}: names no increment that could be repaired")
    return directory / increments[-1]


def readable_bytes(file: BinaryIO) -> int:
    """Where the last whole command ends; an open transaction (MULTI without its EXEC) counts as not written."""
    good, transaction = 0, False
    while True:
        command = _command(file)
        if command is None:
            return good
        word = command.upper()
        transaction = (transaction or word == b"MULTI") and word != b"EXEC"
        if not transaction:
            good = file.tell()


def _command(file: BinaryIO) -> bytes | None:
    """The first word of the next command, empty for a timestamp; None where no whole command follows."""
    line = file.readline(LONGEST_LINE)
    if line.startswith(b"#") and line.endswith(b"\r\n"):
        return b""
    count = _figure(line, b"*")
    if count is None or not 0 < count <= MOST_ARGUMENTS:
        return None
    word: bytes | None = None
    for _ in range(count):
        length = _figure(file.readline(LONGEST_LINE), b"$")
        if length is None:
            return None
        if word is None and length <= LONGEST_LINE:
            word = file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
            word = word or b"-"
        if file.read(2) != b"\r\n":
            return None
    return word


def _figure(line: bytes, mark: bytes) -> int | None:
    digits = line[1:-2]
    return int(digits) if line.startswith(mark) and line.endswith(b"\r\n") and digits.isdigit() else None


def repair(path: Path) -> Repaired:
    """Put a copy that ends with the last whole command in the file's place, and keep the file as it was beside it. Blocks.

    NotApplicable where all of it can be read; ToolFailed where the copy can't be written.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            readable = readable_bytes(file)
            if readable == found.st_size:
                raise NotApplicable(f"{path}: can be read to its end; nothing was repaired")
            draft = path.with_name(f"{path.name}.repaired")
            file.seek(0)
            _copy(file, draft, readable, found)
        broken = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
        os.link(path, broken)
        draft.replace(path)
    except OSError as error:
        raise ToolFailed(f"{path}: can't be repaired ({error.strerror}); it is as it was") from error
    return Repaired(path, broken, found.st_size, readable)


def _copy(file: BinaryIO, draft: Path, size: int, like: os.stat_result) -> None:
    draft.unlink(missing_ok=True)
    with draft.open("xb") as copy:
        os.fchmod(copy.fileno(), like.st_mode & 0o777)
        if (os.geteuid(), os.getegid()) != (like.st_uid, like.st_gid):
            os.fchown(copy.fileno(), like.st_uid, like.st_gid)
        shutil.copyfileobj(file, copy, COPY_BYTES)
        copy.truncate(size)
        copy.flush()
        os.fsync(copy.fileno())
