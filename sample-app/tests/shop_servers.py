"""Real servers for the shop: PostgreSQL, Valkey and Nginx from wheels, and the shop itself as a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis

PASSWORD = "kettle-92-violet"
SAMPLE_APP = Path(__file__).parents[1]


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 10, what: str = "the condition") -> float:
    """Return the seconds it took until `condition`; fail after `seconds`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            pytest.fail(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)
    return time.monotonic() - started


def answers(client: httpx.Client, url: str) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Server:
    """A server process on a port of its own that a test may kill, freeze and start again."""

    command: list[str]
    port: int
    ready: Callable[[], bool]
    user: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    log: Path = Path(os.devnull)
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start, and return the seconds until it was ready."""
        self.launch()
        try:
            return wait_until(self.ready, what=f"{Path(self.command[0]).name} ready")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def launch(self) -> None:
        """Start, without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
                cwd=SAMPLE_APP,
                env={**os.environ, **self.environment},
            )

    def freeze(self) -> None:
        """Stop it and its children from running, without ending them."""
        for process in self._tree():
            process.suspend()

    def thaw(self) -> None:
        """Let them run again."""
        for process in self._tree():
            # The first to run again may end others.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _tree(self) -> list[psutil.Process]:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def stop(self, number: signal.Signals | None = None) -> float:
        """End it, with its own signal or another, and return the seconds it took."""
        if self.process is None:
            return 0.0
        started = time.monotonic()
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(number or self.stop_signal)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=5)
                raise
        return time.monotonic() - started

    def ensure_running(self) -> None:
        """Bring it back for the next test."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        else:
            self.thaw()


@dataclass
class Postgres:
    """PostgreSQL with room for 100 connections; the shop's role is no superuser."""

    server: Server

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        """A URL of this server."""
        credentials = f"{user}:{password}" if password else user
        return f"postgresql://{credentials}@127.0.0.1:{self.server.port}/{database}"

    def query(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the superuser, on a connection of its own."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@dataclass
class Cache:
    """Valkey with 64 MB, which refuses writes when they are used up."""

    server: Server

    @property
    def url(self) -> str:
        """Its URL, with its password."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.server.port}/0"

    def client(self) -> redis.Redis:
        """A client of the test's own."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=5)


@dataclass
class RunningShop:
    """The shop as a process, and what a customer and a test need of it."""

    server: Server
    client: httpx.Client

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.port}"

    def request(self, method: str, path: str, json: object = None) -> httpx.Response:
        """Call it without the proxy."""
        return self.client.request(method, self.url + path, json=json)

    def get(self, path: str) -> httpx.Response:
        """GET without the proxy."""
        return self.request("GET", path)

    def log(self) -> list[dict[str, object]]:
        """Every line of its log."""
        return [json.loads(line) for line in self.server.log.read_text().splitlines()]

    def close(self) -> None:
        """Stop it; it must have ended well, and have logged nothing but JSON lines (so no Python warning either)."""
        self.server.stop()
        assert self.server.process is not None
        assert self.server.process.returncode == 0
        assert [line for line in self.log() if "exception" in line] == []


def make_shop(client: httpx.Client, directory: Path, database_url: str, cache_url: str, public_url: str = "") -> RunningShop:
    """A shop that is not started yet."""
    environment = {"SHOP_DATABASE_URL": database_url, "SHOP_CACHE_URL": cache_url, "SHOP_PUBLIC_URL": public_url}
    # Python warns of everything that is left open.
    command = [sys.executable, "-W", "default", "-m", "shop"]
    server = Server(command, free_port(), lambda: False, environment=environment, log=directory / "shop.log")
    environment["SHOP_LISTEN"] = f"127.0.0.1:{server.port}"
    shop = RunningShop(server, client)
    server.ready = lambda: answers(client, f"{shop.url}/load")
    return shop


@dataclass
class Proxy:
    """Nginx in front of a shop."""

    server: Server
    shop: RunningShop
    url: str


NGINX_CONF = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; proxy_read_timeout 3s; }} }}
}}
"""
