"""A Docker engine for the lab: the one that runs, else Debian's, started here. `python -m compose.engine up|down --directory DIR`.

`up` uses what answers. Where nothing does, and this is root on a Debian-like system, it installs docker.io and starts dockerd with its data
below DIR; `down` ends that engine with all of its containers, and no other. The base image comes from a registry, or from Debian's mirrors.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import docker
import docker.errors
import requests

from compose.description import LabError
from compose.processes import Identity, descendants, identify, is_alive, send
from compose.progress import doing

BASE_IMAGE = "debian:bookworm-slim"
SUITE = "bookworm"
EXTRA_AUTHORITIES = Path("/usr/local/share/ca-certificates")
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
DIRECTORY = Path("/var/lib/evenkeel-engine")
"""Short, because the addresses of sockets below it may have 107 characters at most."""
ANSWER_SECONDS = 20.0
PULL_SECONDS = 120.0
INSTALL_SECONDS = 300.0
START_SECONDS = 60.0
STOP_SECONDS = 30.0


_own_children: dict[Path, subprocess.Popen[bytes]] = {}
"""Engines that this very process started, each by its directory: it has to collect them when they end."""


def engine_address() -> str:
    """Where the engine is expected: DOCKER_HOST, else the default socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET


def connect() -> docker.DockerClient:
    """A client of the engine that runs; LabError says what to do where none answers."""
    return _connect(engine_address())


def _connect(address: str) -> docker.DockerClient:
    try:
        if address.startswith("unix://"):
            # Docker's client leaves its sockets open where nothing answers.
            with socket.socket(socket.AF_UNIX) as knock:
                knock.settimeout(ANSWER_SECONDS)
                knock.connect(address.removeprefix("unix://"))
        return docker.DockerClient(base_url=address, timeout=ANSWER_SECONDS)
    except (OSError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
        remedy = "start Docker, join the group `docker`, or as root: python -m compose.engine up"
        raise LabError(f"no container engine answers at {address}; {remedy}") from error


def is_running() -> bool:
    """Whether an engine answers."""
    try:
        connect().close()
    except LabError:
        return False
    return True


def ensure_engine(directory: Path, command: Sequence[str] = ("dockerd",)) -> bool:
    """Have an engine: True where it was started here, and `stop_engine` ends it. LabError where it can neither be had nor started.

    `command` is how dockerd is called, for an engine that stands beside another.
    """
    if is_running():
        return False
    if os.geteuid() != 0:
        raise LabError(f"no container engine answers at {engine_address()}, and only root can start one; start Docker first")
    for program, package in (("dockerd", "docker.io"), ("iptables", "iptables")):
        if shutil.which(program) is None:
            install(package)
    if is_running():
        # The package's own service was started by its installation.
        return False
    with doing("start dockerd"):
        _start(directory.absolute(), command)
    return True


def _start(directory: Path, command: Sequence[str]) -> None:
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    log = directory / "dockerd.log"
    arguments = (
        *command,
        f"--host={engine_address()}",
        f"--data-root={directory / 'data'}",
        f"--exec-root={directory / 'run'}",
        f"--pidfile={directory / 'dockerd.pid'}",
    )
    with log.open("ab") as output:
        daemon = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    _own_children[directory] = daemon
    identity = identify(daemon.pid)
    if identity is not None:
        _record(directory).write_text(f"{identity.pid} {identity.start_ticks} {engine_address()}\n", encoding="utf-8")
    deadline = time.monotonic() + START_SECONDS
    while not is_running():
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            _clear(directory)
            raise LabError(f"dockerd did not start; its log ends with:\n{log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.1)


def stop_engine(directory: Path) -> bool:
    """End the engine that was started with this directory, with its containers, and remove its data; False where there is none."""
    directory = directory.absolute()
    record = _record(directory)
    if not record.exists():
        return False
    pid, start_ticks, address = record.read_text(encoding="utf-8").split()
    daemon = Identity(int(pid), int(start_ticks))
    if is_alive(daemon):
        family = descendants(daemon) | {daemon}
        _remove_containers(address)
        send(daemon, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while is_alive(daemon) and time.monotonic() < deadline:
            time.sleep(0.1)
        for member in family:
            if is_alive(member):
                send(member, signal.SIGKILL)
    _clear(directory)
    return True


def _clear(directory: Path) -> None:
    """Remove an ended engine's data. One that was killed leaves mounts behind, those within others last."""
    if directory in _own_children:
        _own_children.pop(directory).wait(STOP_SECONDS)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(directory):
            _run(("umount", mount), STOP_SECONDS, dict(os.environ))
    for part in ("data", "run"):
        if (directory / part).exists():
            shutil.rmtree(directory / part)
    _record(directory).unlink(missing_ok=True)


def _remove_containers(address: str) -> None:
    """Their shims are no children of dockerd, so they would outlive it."""
    client = _connect(address)
    try:
        for container in client.containers.list(all=True):
            container.remove(force=True, v=True)
    finally:
        client.close()


def _record(directory: Path) -> Path:
    return directory / "started.txt"


def install(package: str) -> None:
    """Install a package of Debian; LabError where this is not root or there is no apt-get."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise LabError(f"{package} is needed and not installed; install it, or run this as root on Debian")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with doing(f"install {package}"):
        for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", package)):
            _run((apt, *arguments), INSTALL_SECONDS, environment)


def ensure_base_image() -> None:
    """Have the image that all others are built from: pulled, else made from Debian's packages. LabError where neither can be done."""
    client = connect()
    try:
        try:
            client.images.get(BASE_IMAGE)
        except docker.errors.ImageNotFound:
            if not _pull(client):
                with doing(f"make {BASE_IMAGE} from Debian's packages"):
                    _build_base(client)
    finally:
        client.close()


def _pull(client: docker.DockerClient) -> bool:
    client.api.timeout = PULL_SECONDS
    with doing(f"pull {BASE_IMAGE}"):
        try:
            client.images.pull(BASE_IMAGE)
        except (docker.errors.APIError, requests.exceptions.RequestException):
            return False
    return True


def _build_base(client: docker.DockerClient) -> None:
    """The same from Debian's mirrors, with the certificate authorities that this machine has besides Debian's."""
    if shutil.which("mmdebstrap") is None:
        install("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="evenkeel-base-") as directory:
        archive = Path(directory) / "base.tar"
        options = ["--variant=minbase", "--include=ca-certificates"]
        # They hold for what is installed on top as well: smaller, and without waiting for the disk after each file.
        options += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")]
        options.append("--dpkgopt=force-unsafe-io")
        if any(EXTRA_AUTHORITIES.glob("*.crt")):
            options += [f"--customize-hook=copy-in {path} {EXTRA_AUTHORITIES}" for path in sorted(EXTRA_AUTHORITIES.glob("*.crt"))]
            options.append('--customize-hook=chroot "$1" update-ca-certificates')
        _run(("mmdebstrap", *options, SUITE, str(archive)), INSTALL_SECONDS, dict(os.environ))
        name, tag = BASE_IMAGE.split(":")
        client.api.timeout = PULL_SECONDS
        client.api.import_image_from_file(str(archive), repository=name, tag=tag, changes=['CMD ["bash"]'])


def _run(command: Sequence[str], seconds: float, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command[0]}: not done after {seconds:g} s") from error
    if done.returncode:
        raise LabError(f"{command[0]} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-1500:]}")


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m compose.engine", description="A Docker engine for the lab in containers.")
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="data of an engine that is started here")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            started = ensure_engine(arguments.directory)
            ensure_base_image()
            print(f"engine: {'started here' if started else 'the one that runs'}, at {engine_address()}")
        else:
            print("engine: ended" if stop_engine(arguments.directory) else "engine: none was started here")
    except LabError as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
