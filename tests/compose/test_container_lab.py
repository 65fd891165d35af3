"""The lab in containers, looked at as its visitors, its monitor and an attacker would, and with Docker's own command line."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

from compose.container_description import CONTAINERS, ContainerLab
from compose.container_lab import running_container_lab, start_container_lab
from compose.description import LabError
from tests.tasks.engine import docker, inspected

# The first test waits for the lab, and that may be for its images.
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1024 * 1024
AGAIN_SECONDS = 40.0


def until(condition: Callable[[], Any]) -> Any:
    """What the condition answers when it is true, within 40 s."""
    end = time.monotonic() + AGAIN_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, f"the condition did not come true within {AGAIN_SECONDS:g} s"
        time.sleep(0.1)
    return found


def answers(url: str) -> bool:
    """Whether a page is served."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def health_of(name: str) -> str:
    """What the engine's own check says of a container."""
    found: str = inspected(name)["State"]["Health"]["Status"]
    return found


def test_an_order_goes_through_every_server(container_lab: ContainerLab) -> None:
    with httpx.Client(base_url=container_lab.web.url, timeout=5, trust_env=False) as visitor:
        assert visitor.put("carts/ann", json={"lines": [{"product_id": 3, "quantity": 2}]}).is_success
        order = visitor.post("orders", json={"customer": "ann"})
        assert order.is_success, order.text
    with psycopg.connect(container_lab.database.conninfo("monitor")) as monitor:
        found = monitor.execute("SELECT quantity FROM order_lines JOIN orders ON id = order_id WHERE customer = 'ann'").fetchall()
    assert (2,) in found
    trusted = ssl.create_default_context(cafile=str(container_lab.web.tls / "ca.crt"))
    page = httpx.get(f"{container_lab.web.tls_url}static/shop.css", verify=trusted, timeout=5, trust_env=False)
    assert page.is_success
    until(lambda: httpx.get(f"{container_lab.traffic.url}stats", timeout=5, trust_env=False).json()["requests"] > 0)


def test_every_login_may_do_its_own_and_no_more(container_lab: ContainerLab) -> None:
    database = container_lab.database
    roles = {}
    for purpose in database.logins:
        with psycopg.connect(database.conninfo(purpose), connect_timeout=10) as connection:
            roles[purpose] = connection.execute("SELECT current_setting('is_superuser')").fetchone()
    assert {purpose: row for purpose, row in roles.items() if row != ("off",)} == {"admin": ("on",)}
    with psycopg.connect(database.conninfo("monitor"), autocommit=True) as monitor:
        monitor.execute("ALTER SYSTEM SET work_mem = '5MB'")
        monitor.execute("ALTER SYSTEM RESET work_mem")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            monitor.execute("DELETE FROM orders")
    # The superuser that made the database gets in from within its container alone.
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(host=database.host, port=database.port, user="postgres", password="postgres", dbname="shop")
    assert docker("exec", container_lab.container("database"), "psql", "-d", "shop", "-Atc", "SELECT current_user") == "postgres"
    with redis.Redis.from_url(container_lab.cache.url("application"), socket_timeout=5) as application:
        assert application.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            application.config_set("maxmemory", "1gb")
    with redis.Redis.from_url(container_lab.cache.url("monitor"), socket_timeout=5) as monitor_of_cache:
        # The file lies in the directory that is mounted, and the server may replace it.
        before = container_lab.cache.config_path.stat().st_ino
        monitor_of_cache.config_rewrite()
        assert container_lab.cache.config_path.stat().st_ino != before
    with redis.Redis(container_lab.cache.host, container_lab.cache.port) as nobody, pytest.raises(redis.exceptions.AuthenticationError):
        nobody.ping()


def test_every_container_is_bounded_and_tells_no_password(container_lab: ContainerLab) -> None:
    logins = [*container_lab.database.logins.values(), *container_lab.cache.logins.values()]
    for service in CONTAINERS:
        found = inspected(container_lab.container(service))
        host = found["HostConfig"]
        assert 0 < host["Memory"] == host["MemorySwap"] <= 512 * MEBIBYTE, service
        assert 0 < host["NanoCpus"] <= 1_000_000_000, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert {binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings} <= {"127.0.0.1"}, service
        bound = [mount["Source"] for mount in found["Mounts"] if mount["Type"] == "bind"]
        assert all(Path(source).is_relative_to(container_lab.directory) for source in bound), service
        assert not [login.username for login in logins if login.password in json.dumps(found)], service
        assert found["State"]["Health"]["Status"] == "healthy", service


def test_one_of_two_replicas_is_enough(container_lab: ContainerLab) -> None:
    replica = container_lab.container("replica")
    docker("stop", "--time=2", replica)
    try:
        for _ in range(6):
            until(lambda: answers(f"{container_lab.web.url}products/1"))
    finally:
        docker("start", replica)
    until(lambda: health_of(replica) == "healthy")


def test_a_killed_server_comes_back_with_its_data(container_lab: ContainerLab) -> None:
    name = container_lab.container("database")
    count = "SELECT count(*) FROM orders WHERE customer LIKE 'customer-%'"
    with psycopg.connect(container_lab.database.conninfo("application")) as connection:
        before = connection.execute(count).fetchone()
    restarts, pid = inspected(name)["RestartCount"], inspected(name)["State"]["Pid"]
    if os.access(f"/proc/{pid}/fd", os.R_OK):
        os.kill(pid, signal.SIGKILL)
    else:
        pytest.skip("only root may kill a container's process from outside, and the engine's own kill counts as stopped by hand")
    until(lambda: inspected(name)["RestartCount"] == restarts + 1)
    until(lambda: answers(f"{container_lab.app.url}healthz"))
    with psycopg.connect(container_lab.database.conninfo("application"), connect_timeout=10) as connection:
        assert connection.execute(count).fetchone() == before
    until(lambda: health_of(name) == "healthy")


def test_a_container_gets_no_more_memory_than_its_limit(container_lab: ContainerLab) -> None:
    command = ["docker", "exec", container_lab.container("traffic"), "python", "-c", "x = b'1' * 512 * 1024 * 1024"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 128 + signal.SIGKILL
    until(lambda: answers(f"{container_lab.traffic.url}stats"))


def test_up_again_changes_nothing_and_elsewhere_is_refused(container_lab: ContainerLab, tmp_path: Path) -> None:
    identities = [inspected(container_lab.container(service))["Id"] for service in CONTAINERS]
    assert asyncio.run(start_container_lab(container_lab.directory, container_lab.project)) == container_lab
    assert [inspected(container_lab.container(service))["Id"] for service in CONTAINERS] == identities

    async def use() -> None:
        async with running_container_lab(container_lab.directory, container_lab.project):
            pass

    asyncio.run(use())
    assert answers(f"{container_lab.web.url}products/1")
    with pytest.raises(LabError, match=r"is the lab in .*; end that one"):
        asyncio.run(start_container_lab(tmp_path / "other", container_lab.project))


def test_the_command_starts_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    project = f"evenkeel-command-{os.getpid()}"

    def command(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "compose.container_lab", name, "--directory", str(tmp_path / "lab"), *options]
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        return subprocess.run(arguments, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=500, check=False)

    def left() -> list[str]:
        of_project = f"--filter=label=com.docker.compose.project={project}"
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return [line for kind in kinds for line in docker(*kind, "--quiet", of_project).splitlines()]

    try:
        up = command("up", "--project", project)
        assert up.returncode == 0, up.stdout + up.stderr
        assert len(left()) == len(CONTAINERS) + 1 + 2  # a network and two volumes
        assert f"{project}-web-1" in command("status").stdout
    finally:
        down = command("down")
    assert "removed" in down.stdout, down.stdout + down.stderr
    assert left() == []
    assert "nothing was left" in command("down").stdout
