"""What a person would look up first about an Nginx: its binary, its configuration, its workers, its visitors, its log."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import psutil
from pydantic import JsonValue

from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_processes import Processes
from tasks.core.errors import ToolFailed
from tasks.core.nginx_config import ConfigError, directives
from tasks.core.nginx_log import count_templates

MAIN_DIRECTIVES = frozenset(
    {
        "worker_processes",
        "worker_connections",
        "worker_rlimit_nofile",
        "worker_shutdown_timeout",
        "keepalive_timeout",
        "proxy_connect_timeout",
        "proxy_read_timeout",
        "listen",
        "proxy_pass",
    }
)
LOG_LINES = 200
LOG_BYTES = 64 * 1024
REMOTES = 5
TEMPLATES = 10


async def read_report(client: NginxClient) -> dict[str, JsonValue]:
    """Sections by name; what can't be read stands as None. Raises what the runtime raises."""
    processes = await client.processes()
    log, version, remotes = await asyncio.gather(_log_lines(client), _version(client), _remotes(processes))
    report: dict[str, JsonValue] = {
        "state": "stopped or not found" if processes is None else "running",
        "version": version,
        "config_path": client.config_path,
        "directives": _directives(client.config_path),
        "error_lines": dict(list(count_templates(log).items())[:TEMPLATES]),
    }
    if processes is not None:
        usage = client.usage(processes)
        report |= {
            "workers": [
                {
                    "pid": worker.pid,
                    "state": worker.state,
                    "age_seconds": round(max(time.time() - worker.started_at, 0)),
                    "connections": worker.connections,
                    "worker_connections": client.worker_connections(worker),
                }
                for worker in processes.workers
            ],
            "connections_used": usage.used,
            "connections_max": usage.maximum,
            **remotes,
        }
    return report


async def _version(client: NginxClient) -> str | None:
    if client.invocation is None:
        return None
    try:
        _, output = await client.run_binary("-v")
    except ToolFailed:
        return None
    return output.strip().rpartition("/")[2] or None


def _directives(path: str | None) -> dict[str, JsonValue] | str | None:
    """The main directives of the file itself, each with its values in order; the reason where it can't be read."""
    if path is None:
        return None
    found: dict[str, list[str]] = {}
    try:
        for directive in directives(Path(path).read_bytes().decode(errors="replace")):
            if directive.name in MAIN_DIRECTIVES:
                found.setdefault(directive.name, []).append(" ".join(directive.args))
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ConfigError as error:
        return f"can't be read: {error}"
    return {name: ", ".join(values) for name, values in sorted(found.items())}


async def _remotes(processes: Processes | None) -> dict[str, JsonValue]:
    """Established TCP connections of all workers by the other side: visitors by address, upstreams by address and port."""
    if processes is None:
        return {}
    if processes.is_inside:
        return {"clients": None, "upstreams": None}  # its pids are others here
    try:
        clients, upstreams = await asyncio.to_thread(_count_remotes, processes)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return {"clients": None, "upstreams": None}
    return {"clients": dict(clients.most_common(REMOTES)), "upstreams": dict(upstreams.most_common(REMOTES))}


def _count_remotes(processes: Processes) -> tuple[Counter[str], Counter[str]]:
    listening = {
        connection.laddr.port
        for connection in psutil.Process(processes.master[0]).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    clients: Counter[str] = Counter()
    upstreams: Counter[str] = Counter()
    for worker in processes.workers:
        for connection in psutil.Process(worker.pid).net_connections("tcp"):
            if connection.status != psutil.CONN_ESTABLISHED:
                continue
            if connection.laddr.port in listening:
                clients[connection.raddr.ip] += 1
            else:
                upstreams[f"{connection.raddr.ip}:{connection.raddr.port}"] += 1
    return clients, upstreams


async def _log_lines(client: NginxClient) -> list[str]:
    if client.runtime is not None:
        return await client.runtime.log(LOG_LINES)
    return []
