"""A whole lab: how fast it comes up, for whom, and what it tells about itself."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis
import yaml

from blocks.runtimes import ProcessRuntime
from blocks.schema import Inventory, Kind
from compose.description import LabDescription, LabError, load
from compose.lab import lab_running, running_lab

Call = Callable[..., httpx.Response]
StartLab = Callable[..., AbstractContextManager[LabDescription]]
ProcessesOf = Callable[[Path], list[psutil.Process]]

PROJECT = Path(__file__).resolve().parents[2]
NOBODY = 65534
# What Docker leaves to root in a container.
CONTAINER_RIGHTS = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service", "net_raw"),
    *("sys_chroot", "mknod", "audit_write", "setfcap"),
)
READY_SECONDS = 3.0
# The goal is meant for a machine that does nothing else; this one may run other tests.
NOISE = 3


def works(lab: LabDescription) -> None:
    """Every server of a lab serves, asked as its users would."""
    with psycopg.connect(lab.database.conninfo("application"), connect_timeout=5) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with redis.Redis.from_url(lab.cache.url("application"), socket_timeout=5) as client:
        assert client.ping()
    assert httpx.get(lab.web.url, timeout=5).status_code == 200


def test_from_nothing_to_all_healthy(start_partial_lab: StartLab) -> None:
    began = time.monotonic()
    with start_partial_lab() as lab:
        seconds = time.monotonic() - began
        print(f"five services healthy after {seconds:.2f} s, load {os.getloadavg()[0]:.1f}")
        works(lab)
        health = httpx.get(f"{lab.app.url}healthz", timeout=5)
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert httpx.get(f"{lab.web.url}healthz", timeout=5).json()["status"] == "ok"
        assert httpx.get(f"{lab.traffic.url}stats", timeout=5).status_code == 200
    assert seconds < READY_SECONDS * NOISE


def test_the_shop_restarts_while_its_database_is_down(lab: LabDescription, call: Call) -> None:
    """Ready means that it answers; that it is not healthy is for others to see."""
    call(lab, "POST", "/services/database/stop").raise_for_status()
    try:
        call(lab, "POST", "/services/app/restart").raise_for_status()
        assert httpx.get(f"{lab.app.url}healthz", timeout=5).status_code == 503
    finally:
        call(lab, "POST", "/services/database/start").raise_for_status()


def test_the_inventory_describes_the_lab(lab: LabDescription) -> None:
    document = yaml.safe_load(lab.inventory_path.read_text(encoding="utf-8"))
    for resource in document["resources"]:
        logins = resource.get("logins", {})
        for purpose, login in logins.items():
            assert login["password"].startswith("${SHOP_")
            logins[purpose] = login["username"]
    # Where fixes are recorded, and who may connect over MCP, are blocks of their own.
    del document["records"], document["mcp"]
    inventory = Inventory.model_validate(document)
    assert (inventory.name, inventory.lab) == ("lab", True)
    kinds = {resource.name: resource.kind for resource in inventory.resources}
    assert kinds == {"shop-db": Kind.POSTGRES, "shop-cache": Kind.REDIS, "shop-web": Kind.NGINX, "shop-app": Kind.HTTP}
    for resource in inventory.resources:
        assert isinstance(resource.runtime, ProcessRuntime)
        with httpx.Client(transport=httpx.HTTPTransport(uds=resource.runtime.control)) as client:
            assert client.get(f"http://lab/services/{resource.runtime.service}").json()["state"] == "running"
    assert inventory.resource("shop-web").depends_on == ("shop-app",)
    assert set(inventory.resource("shop-app").depends_on) == {"shop-db", "shop-cache"}


def test_the_environment_file_has_what_the_inventory_refers_to(lab: LabDescription) -> None:
    lines = lab.environment_path.read_text(encoding="utf-8").splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert len(variables.pop("EVENKEEL_MCP_TOKEN")) == 64
    assert variables == {
        "SHOP_DB_MONITOR_PASSWORD": lab.database.logins["monitor"].password,
        "SHOP_DB_APPLICATION_PASSWORD": lab.database.logins["application"].password,
        "SHOP_DB_MAINTENANCE_PASSWORD": lab.database.logins["maintenance"].password,
        "SHOP_DB_ADMIN_PASSWORD": lab.database.logins["admin"].password,
        "SHOP_CACHE_MONITOR_PASSWORD": lab.cache.password,
        "SHOP_CACHE_APPLICATION_PASSWORD": lab.cache.logins["application"].password,
    }
    assert not [line for line in lines if line.split("=", 1)[1] in lab.inventory_path.read_text(encoding="utf-8")]


def test_what_holds_a_password_is_private(lab: LabDescription) -> None:
    assert stat.S_IMODE(lab.directory.stat().st_mode) == 0o700
    for name in ("lab.json", "lab.env", "processes.json", "control.sock", "valkey/valkey.conf"):
        assert stat.S_IMODE((lab.directory / name).stat().st_mode) & 0o077 == 0
    # Command lines are everybody's to read.
    words = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()]
    passwords = [login.password for login in (*lab.database.logins.values(), *lab.cache.logins.values())]
    assert not [password for password in passwords if any(password in word for word in words)]


async def test_two_labs_at_once(tmp_path: Path) -> None:
    async with running_lab(tmp_path / "one", ["cache"]) as one, running_lab(tmp_path / "two", ["cache"]) as two:
        assert one.cache.port != two.cache.port
        for lab in (one, two):
            with redis.Redis.from_url(lab.cache.url("monitor")) as client:
                client.set("name", lab.directory.name)
        for lab in (one, two):
            with redis.Redis.from_url(lab.cache.url("monitor")) as client:
                assert client.get("name") == lab.directory.name.encode()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path, processes_of: ProcessesOf) -> None:
    async def forever() -> None:
        async with running_lab(tmp_path / "lab", ["database", "cache"]):
            await asyncio.sleep(60)

    starting = asyncio.create_task(forever())
    async with asyncio.timeout(10):
        while not (tmp_path / "lab" / "processes.json").exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_of(tmp_path / "lab") == []


def test_a_long_path_with_spaces(tmp_path: Path, call: Call) -> None:
    """Longer than a socket's address can be."""
    directory = tmp_path.joinpath(*["a long name of a directory"] * 5)
    with lab_running(directory, ("database", "cache", "web")) as lab:
        assert len(bytes(lab.control)) < 107 < len(bytes(directory))
        works(lab)
        call(lab, "POST", "/services/database/restart").raise_for_status()
        works(lab)
    assert not lab.control.parent.exists()


def python_of(user: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """An interpreter that this user can run, with the environment in which it finds the packages; None where there is none.

    A virtual environment of root's often points below /root.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)}
    again = "import subprocess, sys, psutil, pydantic; subprocess.run([sys.executable, '-c', ''], check=True)"
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if (
            Path(python).exists()
            and subprocess.run([*user, python, "-c", again], env=environment, stderr=subprocess.DEVNULL).returncode == 0
        ):
            return python, environment
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="this test run is not root's: every other test shows that the lab needs no root")
def test_without_root() -> None:
    """The same as a user with no rights at all."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (package util-linux) is not installed: no way to become another user here")
    user = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    found = python_of(user)
    if found is None:
        pytest.skip(f"{sys.executable} lies in a private directory, and no other interpreter has its version")
    python, environment = found
    with tempfile.TemporaryDirectory(prefix="evenkeel-test-") as home:
        directory = Path(home) / "lab"
        os.chown(home, NOBODY, NOBODY)
        command = (*user, python, "-m", "compose.lab", "up", "--directory", str(directory), "--services", "database,cache,web")
        with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline().startswith("healthy after")
            lab = load(directory)
            works(lab)
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(lab.control))) as client:
                for state in client.get("http://lab/services").json():
                    assert psutil.Process(state["pid"]).uids().real == NOBODY
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_without_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes_of: ProcessesOf) -> None:
    """Where `unshare` is refused, PostgreSQL becomes another user, in a directory that only root may enter."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (package util-linux) is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    tmp_path.chmod(0o700)
    directory = tmp_path / "lab"
    for _ in range(2):
        with lab_running(directory, ("database",)) as lab, psycopg.connect(lab.database.conninfo("application")) as connection:
            assert psutil.Process(connection.info.backend_pid).uids().real == NOBODY
    assert processes_of(directory) == []
    monkeypatch.undo()
    # And back: the files change hands.
    with lab_running(directory, ("database",)) as lab, psycopg.connect(lab.database.conninfo("application")) as connection:
        assert psutil.Process(connection.info.backend_pid).uids().real in {0, NOBODY}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_with_the_rights_that_a_container_has(tmp_path: Path) -> None:
    """No user namespaces, no look into other users' processes: what survives a kill must be found all the same."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (package util-linux) is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").symlink_to(setpriv)
    rights = "-all," + ",".join(f"+{right}" for right in CONTAINER_RIGHTS)
    tests = Path(__file__).parent
    command = [setpriv, f"--bounding-set={rights}", "--inh-caps=-all", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    chosen = [
        tests / "test_control.py::test_backends_of_a_killed_postgres_go_before_the_next_start",
        tests / "test_supervisor.py::test_orphans_of_killed_masters_go_too",
        tests / "test_supervisor.py::test_a_kill_in_the_middle_of_the_first_start_spoils_nothing",
        tests / "test_supervisor.py::test_stop_leaves_no_process_no_socket_and_no_shared_memory",
    ]
    environment = {**os.environ, "PATH": str(tmp_path / "bin")}
    done = subprocess.run([*command, *chosen], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert "4 passed" in done.stdout, done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by PostgreSQL")
def test_root_without_any_way_is_told_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(LabError, match=r"unshare: not installed .*setpriv: not installed .*start the lab as a user other than root"),
        lab_running(tmp_path / "lab", ("database",)),
    ):
        pass


def test_the_command_line_starts_shows_and_ends_a_lab(tmp_path: Path, processes_of: ProcessesOf) -> None:
    def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "compose.lab", *arguments, "--directory", str(tmp_path / "lab")]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)

    none = lab("down")
    assert (none.returncode, none.stdout) == (1, "")
    assert "no lab here" in none.stderr
    up = lab("up", "--detach", "--services", "cache")
    assert (up.returncode, up.stderr) == (0, "")
    status = lab("status")
    assert "cache     running" in status.stdout
    assert lab("down").returncode == 0
    assert processes_of(tmp_path / "lab") == []
    after = lab("status")
    assert after.returncode == 1
    assert "the lab is down" in after.stderr


def test_ctrl_c_ends_a_lab_in_the_foreground(tmp_path: Path, processes_of: ProcessesOf) -> None:
    command = [sys.executable, "-m", "compose.lab", "up", "--directory", str(tmp_path / "lab"), "--services", "cache"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("healthy after")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
    assert processes_of(tmp_path / "lab") == []


def test_an_unwritable_directory_is_an_error_with_its_path() -> None:
    with pytest.raises(LabError, match="/proc/lab"), lab_running(Path("/proc/lab"), ("cache",)):
        pass
