"""A configuration file of a server that is replaced whole, or not at all."""

import asyncio
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import NotApplicable, ToolFailed

LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Content:
    """What the file held, and which version of it that was."""

    text: str
    found: os.stat_result


@dataclass(frozen=True)
class Draft:
    """A new content beside the file, not in force yet."""

    path: Path
    replaces: Content


@dataclass(frozen=True)
class ConfigFile:
    """One file. Bytes that are not UTF-8 survive reading and writing (surrogateescape), and so do line ends."""

    path: Path

    @asynccontextmanager
    async def locked(self, deadline_seconds: float = LOCK_SECONDS) -> AsyncIterator[None]:
        """Keep every other caller out, in this process and in others; NotApplicable at the deadline.

        The lock is on the directory: one on the file itself would not survive its replacement. It ends with its holder.
        """
        try:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NotApplicable(f"{self.path}: its directory can't be opened ({error.strerror})") from error
        try:
            await self._lock(directory, time.monotonic() + deadline_seconds)
            yield
        finally:
            os.close(directory)

    async def _lock(self, directory: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise NotApplicable(f"{self.path}: another change of this configuration is under way; nothing was done") from error
                await asyncio.sleep(LOCK_POLL_SECONDS)
            else:
                return

    def read(self) -> Content:
        """The content; NotApplicable where it can't be read."""
        try:
            with self.path.open("rb") as file:
                return Content(file.read().decode(errors="surrogateescape"), os.fstat(file.fileno()))
        except OSError as error:
            raise NotApplicable(f"{self.path}: can't be read ({error.strerror})") from error

    def draft(self, text: str, replaces: Content) -> Draft:
        """Write a draft with the file's mode and owner, on the disk when this returns. Call it under the lock.

        Drafts that a crash left behind are removed first. ToolFailed where the directory can't be written to.
        """
        try:
            for other in self.path.parent.iterdir():
                if other.name.startswith(self._draft_prefix):
                    other.unlink()
        except OSError as error:
            raise ToolFailed(f"{self.path}: old drafts beside it can't be removed ({error.strerror}); nothing was changed") from error
        return Draft(self._write_beside(text, replaces.found), replaces)

    def _write_beside(self, text: str, found: os.stat_result) -> Path:
        try:
            # Hidden, so that no `include conf.d/*` takes it in; beside the file, so that its relative includes hold.
            descriptor, name = tempfile.mkstemp(prefix=self._draft_prefix, dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(text.encode(errors="surrogateescape"))
                    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
                    if (os.geteuid(), os.getegid()) != (found.st_uid, found.st_gid):
                        os.fchown(descriptor, found.st_uid, found.st_gid)
                    file.flush()
                    os.fsync(descriptor)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ToolFailed(f"{self.path}: a new version can't be written beside it ({error.strerror}); nothing was changed") from error
        return Path(name)

    def keep(self, name: str, content: Content) -> None:
        """Keep a copy of a content beside the file, in place of the one kept under that name, for its owner's eyes as the file itself."""
        copy = self._write_beside(content.text, content.found)
        try:
            copy.replace(self._copy(name))
        except OSError as error:
            copy.unlink(missing_ok=True)
            raise ToolFailed(f"{self.path}: a copy can't be kept beside it ({error.strerror})") from error

    def kept(self, name: str) -> str | None:
        """The copy kept under that name, or None. NotApplicable where it can't be read."""
        try:
            return self._copy(name).read_bytes().decode(errors="surrogateescape")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotApplicable(f"{self.path}: the copy kept beside it can't be read ({error.strerror})") from error

    def _copy(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}")

    def put(self, draft: Draft) -> None:
        """Put the draft in the file's place in one step. ToolFailed where somebody changed the file since it was read."""
        try:
            now = self.path.stat()
        except OSError as error:
            raise ToolFailed(f"{self.path}: is gone ({error.strerror}); nothing was changed") from error
        if _version(now) != _version(draft.replaces.found):
            raise ToolFailed(f"{self.path}: somebody changed it in this moment; nothing was changed here")
        try:
            draft.path.replace(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise ToolFailed(f"{self.path}: can't be replaced ({error.strerror})") from error

    @property
    def _draft_prefix(self) -> str:
        return f".{self.path.name}.evenkeel-"


def discard(draft: Draft) -> None:
    """Remove a draft that was not put in place."""
    draft.path.unlink(missing_ok=True)


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
