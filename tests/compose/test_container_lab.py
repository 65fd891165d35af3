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

from blocks.inventory_file import parse_inventory
from blocks.register import read_environment_file
from compose.container_description import CONTAINERS, ContainerLab
from compose.container_lab import running_container_lab
from tasks.clients.containers import open_container
from tasks.tools.containers_limits import Scale, docker_scale
from tests.tasks.engine import IDLE, IMAGE, docker, inspected

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


async def test_the_replicas_are_scaled_from_the_labs_own_files(container_lab: ContainerLab) -> None:
    environment = read_environment_file(container_lab.environment_path.read_text(encoding="utf-8"))
    inventory = parse_inventory(container_lab.inventory_path.read_text(encoding="utf-8"), environment).inventory
    client = open_container(inventory.resource(CONTAINERS["replica"]))
    second = container_lab.container("replica").removesuffix("1") + "2"
    try:
        await docker_scale(client, Scale(replicas=2))
        assert inspected(second)["State"]["Running"]
        known = docker("exec", container_lab.container("web"), "getent", "ahostsv4", "shop")
        assert len({line.split()[0] for line in known.splitlines()}) == 3
    finally:
        await docker_scale(client, Scale(replicas=1))
        await client.close()
    assert second not in docker("ps", "--all", "--format={{.Names}}").splitlines()


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


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the lab's command as a person would, without a Prefect server to register with."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    line = [sys.executable, "-m", "compose.container_lab", *arguments]
    return subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_up_again_changes_nothing_and_elsewhere_is_refused(container_lab: ContainerLab, tmp_path: Path) -> None:
    described = container_lab.inventory_path.read_text(encoding="utf-8")
    identities = [inspected(container_lab.container(service))["Id"] for service in CONTAINERS]
    up = command("up", "--directory", str(container_lab.directory), "--project", container_lab.project)
    assert up.returncode == 0, up.stdout + up.stderr
    assert container_lab.container("web") in up.stdout

    async def use() -> None:
        async with running_container_lab(container_lab.directory, container_lab.project) as lab:
            assert lab == container_lab

    asyncio.run(use())
    assert [inspected(container_lab.container(service))["Id"] for service in CONTAINERS] == identities
    assert container_lab.inventory_path.read_text(encoding="utf-8") == described
    assert answers(f"{container_lab.web.url}products/1")
    for name in ("up", "down"):
        refused = command(name, "--directory", str(tmp_path / "other"), "--project", container_lab.project)
        assert refused.returncode == 2
        assert "end that one, or give another name" in " ".join(refused.stdout.split())


def test_down_removes_what_a_lab_whose_directory_is_gone_left(tmp_path: Path) -> None:
    project = f"evenkeel-left-{os.getpid()}"
    label = f"com.docker.compose.project={project}"

    def left() -> list[str]:
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return [line for kind in kinds for line in docker(*kind, "--quiet", f"--filter=label={label}").splitlines()]

    docker("network", "create", "--label", label, f"{project}_shop")
    docker("volume", "create", "--label", label, f"{project}_cache")
    options = (f"--label=evenkeel.directory={tmp_path}/gone", f"--network={project}_shop", f"--volume={project}_cache:/data")
    docker("run", "--detach", "--label", label, *options, IMAGE, *IDLE)
    assert len(left()) == 3
    down = command("down", "--directory", str(tmp_path / "lab"), "--project", project)
    assert "removed" in down.stdout, down.stdout + down.stderr
    assert left() == []
    assert "nothing was left" in command("down", "--directory", str(tmp_path / "lab"), "--project", project).stdout
