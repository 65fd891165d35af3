"""A ready client for one Nginx."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from blocks.schema import Resource
from tasks.clients.config_file import ConfigFile
from tasks.clients.nginx_configuration import CLOCK_TOLERANCE_SECONDS, KNOWN_GOOD, ConfigWatch
from tasks.clients.nginx_inside import read_inside, read_inside_invocation, signal_inside
from tasks.clients.nginx_processes import Identity, Invocation, Processes, Worker, read_invocation, read_processes, send_signal
from tasks.clients.polling import poll
from tasks.clients.runtime import Inside, Runtime
from tasks.clients.sharing import Shared
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed
from tasks.core.models import Reading
from tasks.core.nginx_config import MAIN, ConfigError, find, read_worker_connections

BINARY_SECONDS = 5.0
NEW_WORKERS_SECONDS = 5.0
OLD_WORKERS_SECONDS = 1.0


@dataclass(frozen=True)
class Usage:
    """Connections that the serving workers hold; None what could not be found out."""

    used: int | None = None
    maximum: int | None = None
    percent: float | None = None
    busiest_percent: float | None = None
    """Share of the fullest worker: slots are not shared between workers."""


@dataclass
class NginxClient:
    """The page as a visitor gets it, the configuration file and the processes of one Nginx.

    Processes are read on this machine: the master's pid comes from the runtime, or from the file that the configuration's `pid` names.
    Where a container hides them they are read inside it. Its configuration is then the one in the directory that it shares with this
    machine, under the same file name.
    """

    http: httpx.AsyncClient
    resource: Resource
    runtime: Runtime | None = None
    invocation: Invocation | None = field(default=None, init=False)
    """How the running master was started; kept when it is gone, to test a configuration before the next start."""
    readings: Shared[Reading] = field(default_factory=Shared, init=False, repr=False)
    """Probes of resources that share this client share a reading, or they would themselves use the connections up."""
    watch: ConfigWatch = field(default_factory=ConfigWatch, init=False, repr=False)
    """What is known of the configuration file."""
    _last: Processes | None = field(default=None, init=False, repr=False)
    _limits: dict[Identity, int] = field(default_factory=dict, init=False, repr=False)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    @property
    def inside(self) -> Inside | None:
        """The runtime, where Nginx has files and processes of its own there."""
        return self.runtime if isinstance(self.runtime, Inside) else None

    async def processes(self) -> Processes | None:
        """Master and workers now; None where none run or their pid can't be found out.

        The runtime is asked only when the master seen last is gone, or can't be seen from here. Raises what the runtime raises.
        """
        found = None if self._last is None or self._last.is_inside else read_processes(self._last.master[0])
        if found is None or self._last is None or found.master != self._last.master:
            found = await self._look_again()
        self._last = found
        if found is not None:
            alive = {worker.identity for worker in found.workers}
            self._limits = {identity: limit for identity, limit in self._limits.items() if identity in alive}
        return found

    async def _look_again(self) -> Processes | None:
        if self._last is None or not self._last.is_inside:
            pid = await self._master_pid()
            found = None if pid is None else read_processes(pid)
            invocation = None if found is None else read_invocation(found.master[0])
            if found is not None and (invocation is not None or self.inside is None):
                self.invocation = invocation
                if self.inside is not None and invocation is not None and invocation.config is None:
                    self.invocation = await read_inside_invocation(self.inside, invocation.title)
                return found
        seen = None if self.inside is None else await read_inside(self.inside)
        if seen is None or self.inside is None:
            return None
        found, title = seen
        if self._last is None or found.master != self._last.master or self.invocation is None:
            self.invocation = await read_inside_invocation(self.inside, title)
        return found

    async def require_processes(self) -> Processes:
        """Master and workers; NotApplicable where there are none to act on."""
        found = await self.processes()
        if found is None:
            raise NotApplicable(
                f"{self.resource.name}: no running Nginx is found; it is stopped, or neither runtime nor pid file lead to it"
            )
        if self.invocation is None:
            raise NotApplicable(f"{self.resource.name}: Nginx runs as somebody whose processes may not be looked into")
        return found

    async def _master_pid(self) -> int | None:
        if self.runtime is not None:
            return (await self.runtime.status()).pid
        return None if self.resource.config_path is None else _pid_from_file(Path(self.resource.config_path))

    @property
    def config_path(self) -> str | None:
        """The configuration file on this machine: the inventory's word, else the running master's."""
        if self.resource.config_path is not None:
            return os.path.realpath(self.resource.config_path)
        return None if self.invocation is None or self.inside is not None else self.invocation.config_path

    def config_file(self) -> ConfigFile:
        """The file that tools may edit; NotApplicable where none is known, or the running Nginx loads another one."""
        path = self.config_path
        loaded = None if self.invocation is None else self.invocation.config_path
        if path is None:
            raise NotApplicable(f"{self.resource.name}: the inventory names no config_path; add it to let the configuration be changed")
        if loaded is not None and (Path(loaded).name != Path(path).name if self.inside is not None else loaded != path):
            raise NotApplicable(f"{self.resource.name}: config_path is {path}, but the running Nginx loads {loaded}; correct the inventory")
        return ConfigFile(Path(path))

    def shared_path(self, named: str) -> Path:
        """Where a file that the configuration names lies on this machine.

        NotApplicable: Nginx runs in a container, and the file is not below the directory of its configuration, which both share.
        """
        directory = self.config_file().path.parent
        if self.inside is None or not Path(named).is_absolute():
            return directory / named
        theirs = None if self.invocation is None else self.invocation.config_path
        if theirs is None or not Path(named).is_relative_to(Path(theirs).parent):
            raise NotApplicable(
                f"{self.resource.name}: {named} is not below the directory of the configuration, which is all that is shared"
            )
        return directory / Path(named).relative_to(Path(theirs).parent)

    def _their_path(self, path: str) -> str:
        """What Nginx calls a file beside its configuration."""
        theirs = None if self.invocation is None else self.invocation.config_path
        return path if self.inside is None or theirs is None else str(Path(theirs).with_name(Path(path).name))

    def worker_connections(self, worker: Worker) -> int | None:
        """The limit that this running worker was started with; None where it is not known.

        Nginx tells no running value. A worker that started after the last change of the file uses what the file says; what was
        read for it then holds for its life, whatever is written later. Where the file was changed after the worker started, before
        anybody here looked, the last configuration that served well is taken to be the loaded one; None where none is kept. (A
        crashed worker that the master replaces after such a change is taken to use it.)
        """
        path = self.config_path
        if worker.identity not in self._limits and path is not None:
            try:
                if Path(path).stat().st_ctime > worker.started_at + CLOCK_TOLERANCE_SECONDS:
                    kept = ConfigFile(Path(path)).kept(KNOWN_GOOD)
                    return None if kept is None else read_worker_connections(kept)
                self._limits[worker.identity] = read_worker_connections(Path(path).read_text(errors="surrogateescape"))
            except (OSError, ConfigError, NotApplicable):
                return None
        return self._limits.get(worker.identity)

    async def config_error(self, path: str | None = None) -> str | None:
        """What `nginx -t` objects to in a configuration file, as the running Nginx would load it; None where it would."""
        code, output = await self.run_binary("-t", config=path)
        if code == 0:
            return None
        lines = [line.partition("] ")[2] for line in output.splitlines() if "[emerg]" in line] or output.splitlines()[-1:]
        reason = "; ".join(lines)[:500]
        if path is not None and self.config_path is not None:
            reason = reason.replace(self._their_path(path), self._their_path(self.config_path))
        return reason or f"exit code {code}"

    async def check_config(self, path: str | None = None) -> None:
        """Test a configuration file; ToolFailed says what is wrong with it."""
        error = await self.config_error(path)
        if error is not None:
            raise ToolFailed(f"{self.resource.name}: nginx -t refuses the configuration, nothing was loaded: {error}")

    async def run_binary(self, *options: str, config: str | None = None) -> tuple[int, str]:
        """Exit code and output of the running Nginx's own binary. ToolFailed where it can't be run or does not end."""
        if self.invocation is None:
            raise NotApplicable(f"{self.resource.name}: no Nginx was seen running, so its binary is not known")
        if self.inside is not None:
            vector = self.invocation.arguments(*options, config=None if config is None else self._their_path(config))
            return await self.inside.run(vector, timeout_seconds=BINARY_SECONDS)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.invocation.arguments(*options, config=config),
                cwd=self.invocation.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            raise ToolFailed(f"{self.resource.name}: {self.invocation.executable} can't be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(BINARY_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise ToolFailed(f"{self.resource.name}: nginx {' '.join(options)} did not end within {BINARY_SECONDS:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return process.returncode or 0, output.decode(errors="replace")

    async def load_config(self, before: Processes) -> Processes:
        """Have the master load the file (SIGHUP) and wait for its new workers."""
        await self.signal_master(before)
        return await self.wait_for_new_workers(before)

    async def signal_master(self, processes: Processes) -> None:
        """Send SIGHUP. A lost reply counts as sent: what follows looks for new workers anyway."""
        if self.runtime is not None:
            with contextlib.suppress(OutcomeUnknown):
                await self.runtime.signal("SIGHUP")
            return
        send_signal(processes.master, signal.SIGHUP)

    async def signal_worker(self, processes: Processes, identity: Identity, number: signal.Signals) -> None:
        """Signal one worker of these processes; NotApplicable where it is gone."""
        if processes.is_inside and self.inside is not None:
            await signal_inside(self.inside, identity, number)
        else:
            send_signal(identity, number)

    async def wait_for_new_workers(self, before: Processes) -> Processes:
        """The processes once new workers serve and the old ones take no more; ToolFailed where no new ones come.

        Old workers that are stopped by a signal never step back: after a second they are left as they are.
        """
        old = {worker.identity for worker in before.workers}
        new_since: float | None = None

        async def taken_over() -> Processes | None:
            nonlocal new_since
            now = await self.processes()
            serving = () if now is None else now.of("serving")
            new = [worker for worker in serving if worker.identity not in old]
            if now is None or not new:
                return None
            new_since = new_since or time.monotonic()
            old_are_done = len(new) == len(serving) and not now.of("stopped")
            return now if old_are_done or time.monotonic() - new_since > OLD_WORKERS_SECONDS else None

        found = await poll(taken_over, seconds=NEW_WORKERS_SECONDS)
        if found is None:
            raise ToolFailed(f"{self.resource.name}: no new workers within {NEW_WORKERS_SECONDS:g} s after SIGHUP; the old ones go on")
        return found

    def usage(self, processes: Processes) -> Usage:
        """Connections of the workers that serve, of what they may hold at most."""
        serving = processes.of("serving")
        used = [worker.connections for worker in serving if worker.connections is not None]
        limits = [limit for worker in serving if (limit := self._limit(worker)) is not None]
        together = processes.connections
        if serving and together is not None:
            most = sum(limits) if len(limits) == len(serving) else None
            return Usage(used=together, maximum=most, percent=100 * together / most if most else None)
        if not serving or len(used) < len(serving):
            return Usage()
        if len(limits) < len(serving):
            return Usage(used=sum(used))
        return Usage(
            used=sum(used),
            maximum=sum(limits),
            percent=100 * sum(used) / sum(limits),
            busiest_percent=max(100 * own / limit for own, limit in zip(used, limits, strict=True)),
        )

    def _limit(self, worker: Worker) -> int | None:
        """Each connection takes a file too, so the lower of both limits holds."""
        connections = self.worker_connections(worker)
        return None if connections is None else min(connections, worker.open_files or connections)


def _pid_from_file(config: Path) -> int | None:
    """The number in the file that the configuration's `pid` names by an absolute path, or None."""
    try:
        named = find(config.read_text(errors="surrogateescape"), "pid", MAIN)
        return None if named is None else int(Path(*named.args).read_text())
    except (OSError, ValueError):
        return None
