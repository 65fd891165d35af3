"""What is known of an Nginx's configuration file: whether it is the loaded one, whether it could be, and the last that served well."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from tasks.clients.config_file import ConfigFile, Content
from tasks.clients.nginx_processes import Identity, Processes
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.nginx_config import ConfigError, upstream_servers

KNOWN_GOOD = "known-good"
"""Name of the copy of the last configuration that served well."""
GOOD_BEFORE = "good-before"
"""Name of the copy of what had served well until a tool edited it: where the edit is taken back, it is the one that served well again."""
REPLACED = "replaced"
"""Name of the copy of what a tool replaced, with which it is undone."""
GOOD_AFTER_SECONDS = 60.0
"""So long must a changed configuration serve well before it counts as good."""
RETEST_SECONDS = 2.0
"""A file that is refused is tested again, as the reason may lie elsewhere: a missing certificate, a name that does not resolve."""
CLOCK_TOLERANCE_SECONDS = 0.02
"""The kernel stamps the start of a process to 10 ms, and files to the last tick of its clock."""


class Tester(Protocol):
    """Tests the configuration file as the running Nginx would load it."""

    async def config_error(self) -> str | None:
        """Why it would not be loaded, or None."""


@dataclass(frozen=True)
class ConfigState:
    """The file as it stands."""

    is_loaded: bool | None
    """Whether the workers use it; None: there are none to be seen."""
    error: str | None
    """Why Nginx would not load it."""
    servers: dict[str, tuple[str, ...]]
    """Upstream block -> servers, by the file."""
    is_known_good: bool | None
    """Whether it is the last that served well; None: none is kept."""


@dataclass
class ConfigWatch:
    """Looks into the file only when it changed: `nginx -t` is a process."""

    _version: tuple[int, ...] | None = None
    _content: Content | None = None
    _servers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _loaded_text: str | None = None
    _loaded_by: frozenset[Identity] = frozenset()
    _error: str | None = None
    _tested_at: float | None = None

    async def state(self, file: ConfigFile, processes: Processes | None, tester: Tester) -> ConfigState:
        """The state now. NotApplicable where the file can't be read."""
        content = self._read(file)
        loaded = self._is_loaded(content, processes)
        if loaded:
            self._error = None
        elif loaded is False and self._is_test_due():
            self._error = await tester.config_error()
            self._tested_at = time.monotonic()
        kept = file.kept(KNOWN_GOOD)
        return ConfigState(loaded, self._error, self._servers, None if kept is None else kept == content.text)

    async def keep_if_good(self, file: ConfigFile, state: ConfigState) -> bool | None:
        """Keep a copy of what serves well, at once where none is kept, else after a minute; answers `is_known_good` as it is then.

        Call it only while the page is served as it should be.
        """
        content = self._content
        if not state.is_loaded or state.is_known_good or content is None:
            return state.is_known_good
        if state.is_known_good is False and time.time() - content.found.st_ctime < GOOD_AFTER_SECONDS:
            return False
        try:
            async with file.locked(0):
                file.keep(KNOWN_GOOD, content)
        except (NotApplicable, ToolFailed):
            # A change is under way, or the directory can't be written to; then tools can't edit the file either.
            return state.is_known_good
        return True

    def _read(self, file: ConfigFile) -> Content:
        try:
            found = file.path.stat()
        except OSError as error:
            raise NotApplicable(f"{file.path}: can't be read ({error.strerror})") from error
        version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._content is None or version != self._version:
            self._content = file.read()
            self._version, self._tested_at, self._error = version, None, None
            try:
                self._servers = upstream_servers(self._content.text)
            except ConfigError:
                self._servers = {}  # `nginx -t` says what is wrong with it
        return self._content

    def _is_loaded(self, content: Content, processes: Processes | None) -> bool | None:
        """A worker that started after the last change of the file uses it; what is written back later is what it uses, too.

        (A crashed worker that the master replaces after a change is taken to use it.)
        """
        serving = () if processes is None else processes.of("serving")
        if not serving:
            return None
        if min(worker.started_at for worker in serving) + CLOCK_TOLERANCE_SECONDS >= content.found.st_ctime:
            self._loaded_text, self._loaded_by = content.text, frozenset(worker.identity for worker in serving)
            return True
        return content.text == self._loaded_text and {worker.identity for worker in serving} <= self._loaded_by

    def _is_test_due(self) -> bool:
        if self._tested_at is None:
            return True
        return self._error is not None and time.monotonic() - self._tested_at >= RETEST_SECONDS


def known_good(file: ConfigFile, name: str) -> str:
    """The text of the last configuration that served well; NotApplicable where none is kept."""
    text = file.kept(KNOWN_GOOD)
    if text is None:
        raise NotApplicable(f"{name}: no configuration was seen serving well yet, so there is none to go back to")
    return text
