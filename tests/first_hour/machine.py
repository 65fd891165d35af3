"""An empty Debian machine: a container with an init system of its own, a person's terminal in it, and a look at it from outside."""

import asyncio
import base64
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from compose.compose_tool import INDEX_VARIABLES
from compose.description import LabError
from compose.engine import EXTRA_AUTHORITIES, ensure_base_image

IMAGE = "evenkeel-first-hour"
READER = "reader"
HOME = f"/home/{READER}"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
BUILD_SECONDS = 300.0
BOOT_SECONDS = 180.0
LOOK_SECONDS = 60.0
END_SECONDS = 180.0
POLL_SECONDS = 1.0
SHOWN = 3000
T = TypeVar("T")

# What systemd needs of a container: a cgroup tree and mounts of its own, and /run in memory.
AS_A_MACHINE = (
    "--cap-add=SYS_ADMIN",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
)

ASK_API = """
import json, sys, urllib.error, urllib.request
path, body, login = json.loads(sys.argv[1])
data = None if body is None else json.dumps(body).encode()
request = urllib.request.Request("http://127.0.0.1:4200" + path, data, {"content-type": "application/json"} | login)
try:
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, ""]))
"""


class Terminal:
    """One shell of the reader's, in which what was set stays set. It ends at the first command that fails."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def enter(self, commands: str, seconds: float) -> str:
        """What the commands print; LabError with its end where one fails, or they take longer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        mark = uuid.uuid4().hex
        encoded = base64.b64encode(commands.encode()).decode()
        # By base64, so that the commands can't read on in what follows them here.
        self._process.stdin.write(f'eval "$(echo {encoded} | base64 -d)" </dev/null\nprintf "\\n%s\\n" {mark}\n'.encode())
        try:
            async with asyncio.timeout(seconds):
                told = await self._process.stdout.readuntil(f"{mark}\n".encode())
        except asyncio.IncompleteReadError as error:
            shown = error.partial.decode(errors="replace")[-SHOWN:]
            raise LabError(f"a command failed:\n{commands}\nIt printed:\n{shown}") from error
        except TimeoutError as error:
            raise LabError(f"not done after {seconds:g} s:\n{commands}") from error
        return told.decode(errors="replace").removesuffix(f"\n{mark}\n")


class Machine:
    """The machine, as its owner looks at it apart from the reader."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def root(self, *command: str, seconds: float = LOOK_SECONDS) -> str:
        """What a command prints, run as root; LabError where it fails."""
        return await run("docker", "exec", self._name, *command, seconds=seconds)

    async def python(self, code: str, *arguments: str) -> Any:
        """The JSON that a few lines of Python print, run as root."""
        return json.loads(await self.root("python3", "-c", code, *arguments))

    async def api(self, path: str, body: object = None, login: str = "") -> tuple[int, str]:
        """Status and text of a page of Prefect's server; by POST where there is a body."""
        header = {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        status, text = await self.python(ASK_API, json.dumps([path, body, header]))
        return status, text

    async def put(self, file: Path, path: str) -> None:
        """Copy a file into the machine, readable by everybody."""
        await run("docker", "cp", str(file), f"{self._name}:{path}", seconds=LOOK_SECONDS)
        await self.root("chmod", "a+r", path)

    @asynccontextmanager
    async def terminal(self) -> AsyncIterator[Terminal]:
        """The reader logs in."""
        process = await asyncio.create_subprocess_exec(
            *("docker", "exec", "--interactive", self._name, "su", "--login", READER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        try:
            terminal = Terminal(process)
            # Background jobs are as in a terminal: in process groups of their own.
            await terminal.enter("exec 2>&1; set -emo pipefail", LOOK_SECONDS)
            yield terminal
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@asynccontextmanager
async def empty_machine() -> AsyncIterator[Machine]:
    """A machine that has just been installed; it is gone afterwards. LabError where there is no engine, or it does not boot."""
    await asyncio.to_thread(ensure_base_image)
    await run("docker", "build", "--quiet", "--tag", IMAGE, str(Path(__file__).parent), seconds=BUILD_SECONDS)
    name = f"{IMAGE}-{uuid.uuid4().hex[:8]}"
    machine = Machine(name)
    try:
        await run("docker", "run", "--detach", "--name", name, "--hostname", "shop-1", *AS_A_MACHINE, IMAGE, seconds=LOOK_SECONDS)
        await until("the machine is up", lambda: _is_up(machine), BOOT_SECONDS)
        await machine.root("sh", "-c", 'printf "%s\\n" "$@" >/etc/environment', "sh", *_environment())
        yield machine
    finally:
        await run("docker", "rm", "--force", "--volumes", name, seconds=END_SECONDS)


def _environment() -> list[str]:
    """The language of an ordinary installation, and where this machine's packages come from."""
    given = [f"{name}={os.environ[name]}" for name in INDEX_VARIABLES if name in os.environ]
    if any(EXTRA_AUTHORITIES.glob("*.crt")):
        given += [f"{name}={AUTHORITIES}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
    return ["LANG=C.UTF-8", *given]


async def _is_up(machine: Machine) -> bool:
    try:
        state = await machine.root("sh", "-c", "systemctl is-system-running || true")
    except LabError:
        return False
    return state.strip() in {"running", "degraded"}


async def until(what: str, look: Callable[[], Awaitable[T | None]], seconds: float) -> T:
    """What is seen, once it is; LabError names what was not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (seen := await look()):
        if loop.time() > deadline:
            raise LabError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(POLL_SECONDS)
    return seen


async def run(*command: str, seconds: float) -> str:
    """What a command prints; LabError where it fails or takes longer."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            told, errors = await process.communicate()
    except TimeoutError as error:
        raise LabError(f"not done after {seconds:g} s: {' '.join(command)}") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        shown = (errors or told).decode(errors="replace")[-SHOWN:]
        raise LabError(f"{' '.join(command)} ended with {process.returncode}:\n{shown}")
    return told.decode(errors="replace")
