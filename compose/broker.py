"""The Redis through which the parts of a distributed Prefect server tell each other of events, leases and work to do."""

import os
from pathlib import Path

from compose.cache import answers_ping, cache_program
from compose.description import HOST, Login, write_private
from compose.named_processes import Command

# What waits in it is not to be had again: every write goes to the file, and nothing is ever dropped for want of memory.
DURABLE = """\
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy noeviction
user default off
user {username} on >{password} ~* &* +@all
"""
CONFIGURATION = (
    """\
# Written at each start.
bind {host}
port {port}
dir "{directory}"
daemonize no
logfile ""
"""
    + DURABLE
)


def broker_settings(url: str) -> dict[str, str]:
    """What each process of the server is told of it; the URL holds its password."""
    return {
        "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_REDIS_MESSAGING_URL": url,
        "PREFECT_REDIS_MESSAGING_SOCKET_CONNECT_TIMEOUT": "5",
        # Above the second that a reader waits for the next event.
        "PREFECT_REDIS_MESSAGING_SOCKET_TIMEOUT": "30",
        # By default an event waits up to ten seconds for four others.
        "PREFECT_REDIS_MESSAGING_PUBLISHER_BATCH_SIZE": "1",
        "PREFECT_REDIS_MESSAGING_PUBLISHER_PUBLISH_EVERY": "1",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
        "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": url,
        "PREFECT_SERVER_DOCKET_URL": url,
    }


def broker_url(host: str, port: int, login: Login) -> str:
    """Its address; it holds the password."""
    return f"redis://{login.username}:{login.password}@{host}:{port}/0"


def broker(directory: Path, port: int, login: Login) -> Command:
    """A broker on that port of the loopback, with its data in a directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "valkey.conf"
    values = {"host": HOST, "port": port, "directory": directory, "username": login.username, "password": login.password}
    write_private(path, CONFIGURATION.format(**values))
    return Command((str(cache_program()), str(path)), dict(os.environ), lambda _pid: answers_ping(HOST, port, login), 30)
