"""The lab's supervisor: one process that owns the servers, and answers on a control socket.

`python -m compose.supervisor --directory DIR` writes one line to its standard output when all services are healthy (`ready`), or when
it gives up (`error: ...`). SIGTERM and SIGINT end every service, then the supervisor.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
from pathlib import Path

import psutil
import uvicorn

from compose.cache import cache
from compose.control import control_app
from compose.database import database
from compose.description import SERVICES, LabDescription, LabError, is_free
from compose.inventory import write_inventory
from compose.new_lab import prepare
from compose.processes import Identity, identify
from compose.records import SOCKET_FOLDER_PREFIX, clear, locked, write_records
from compose.service import Service
from compose.shop import app, traffic
from compose.supervised import ServiceFailed, SupervisedService
from compose.web import web

BUILDERS = {"database": database, "cache": cache, "web": web, "app": app, "traffic": traffic}
HEALTHY_SECONDS = 20.0
HEALTHY_POLL_SECONDS = 0.02
OPEN_FILES = 65_536
# The kernel's limit is 108 bytes with the closing zero.
MAX_SOCKET_BYTES = 100
PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    """The services of one lab."""

    def __init__(self, lab: LabDescription) -> None:
        self._lab = lab
        self._identity = _self()
        self.services = {name: SupervisedService(BUILDERS[name](lab), self._record) for name in lab.services}
        self._record()

    def _record(self) -> None:
        mains = [(one.service, one.main) for one in self.services.values() if one.main is not None and one.state == "running"]
        write_records(self._lab.directory, self._identity, mains)

    async def start_all(self) -> None:
        """Start every service at the same time, and wait until all are healthy: each waits for those it needs by itself.

        LabError names the first that is not.
        """

        async def start(supervised: SupervisedService) -> None:
            service = supervised.service
            if service.prepare is not None:
                await service.prepare()
            await supervised.start()
            await _wait_healthy(service)

        try:
            async with asyncio.TaskGroup() as group:
                for supervised in self.services.values():
                    group.create_task(start(supervised))
        except* (LabError, ServiceFailed, OSError) as failures:
            raise LabError(str(_first(failures))) from failures

    async def end_all(self) -> None:
        """Leave nothing of any service behind."""
        results = await asyncio.gather(*(service.end() for service in self.services.values()), return_exceptions=True)
        self._record()
        for result in results:
            if isinstance(result, BaseException):
                raise result


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _wait_healthy(service: Service) -> None:
    if service.healthy is None:
        return
    try:
        async with asyncio.timeout(HEALTHY_SECONDS):
            while not await service.healthy():  # noqa: ASYNC110 - it happens in another process, which sets no event here
                await asyncio.sleep(HEALTHY_POLL_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{service.name} is not healthy after {HEALTHY_SECONDS:g} s; read {service.log}") from error


def _self() -> Identity:
    identity = identify(os.getpid())
    if identity is None:
        raise LabError("/proc is not mounted; the lab needs it")
    return identity


def _adopt_orphans(loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
    """Take in what loses its parent in a service, such as Nginx's workers, and reap it: not every PID 1 does."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    this = psutil.Process()

    def reap() -> None:
        mains = {service.main.pid for service in supervisor.services.values() if service.main is not None}
        for child in this.children():
            if child.pid not in mains and identify(child.pid) is None:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, os.WNOHANG)

    # What asyncio started is reaped by asyncio at once; what still waits after a second was adopted.
    loop.add_signal_handler(signal.SIGCHLD, lambda: loop.call_later(1, reap))


def _control_path(directory: Path) -> Path:
    """A path for the control socket: in the directory where that is short enough for a socket's address."""
    path = directory / "control.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES:
        return path
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) > MAX_SOCKET_BYTES - len("/evenkeel-12345678/control.sock"):
        folder = "/tmp"  # noqa: S108 - mkdtemp makes a private directory there
    return Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX, dir=folder)) / "control.sock"


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def _check_ports(lab: LabDescription) -> None:
    ports = {"database": lab.database.port, "cache": lab.cache.port, "web": lab.web.port, "app": lab.app.port, "traffic": lab.traffic.port}
    for name in lab.services:
        if not is_free(ports[name]):
            raise LabError(
                f"{name}: another program took port {ports[name]}; end it, or remove {lab.directory} to get a new lab with other ports"
            )


def _begin_logs(lab: LabDescription) -> None:
    """Each start begins new logs, and keeps the last ones."""
    for name in lab.services:
        log = lab.log_path(name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        log.touch(mode=0o600)


async def supervise(directory: Path, services: tuple[str, ...] | None, *, lifeline: bool) -> None:
    """Run the directory's lab until a signal, or with `lifeline` until standard input ends; announce when it is healthy."""
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, leave.set)
    if lifeline:
        # Nothing is ever written to it: readable means that the starter is gone.
        loop.add_reader(0, leave.set)
    await clear(directory)
    lab = prepare(directory, services, _control_path(directory))
    _check_ports(lab)
    _begin_logs(lab)
    write_inventory(lab)
    supervisor = Supervisor(lab)
    _adopt_orphans(loop, supervisor)
    with _listen(lab.control) as listener:
        config = uvicorn.Config(
            control_app(supervisor.services), lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        leaving = asyncio.create_task(leave.wait())
        starting = asyncio.create_task(supervisor.start_all())
        try:
            await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _announce("ready")
                os.dup2(2, 1)
            await leaving
        finally:
            loop.remove_reader(0)
            starting.cancel()
            leaving.cancel()
            server.should_exit = True
            await asyncio.wait({serving, starting})
            await supervisor.end_all()
            await clear(directory)


def _announce(line: str) -> None:
    """Tell the starter, who may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{' '.join(line.split())}\n".encode())


def main() -> int:
    """Run the supervisor; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m compose.supervisor", description="Own the servers of a lab.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--services", help=f"some of {','.join(SERVICES)}; all by default")
    parser.add_argument("--detach", action="store_true", help="leave the caller's process tree")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    if arguments.detach and os.fork():
        return 0
    if os.getpgrp() != os.getpid():
        os.setsid()
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    services = tuple(arguments.services.split(",")) if arguments.services else None
    try:
        directory = arguments.directory.absolute()
        (directory / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory.resolve()
        with locked(directory):
            with (directory / "log" / "supervisor.log").open("w") as log:
                os.dup2(log.fileno(), 2)
            asyncio.run(supervise(directory, services, lifeline=arguments.lifeline))
    except (LabError, ServiceFailed, OSError) as error:
        _announce(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
