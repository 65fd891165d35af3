"""Nothing of a lab outlives it, whatever ends the supervisor."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from compose.description import LabError
from compose.lab import lab_running, start_lab, stop_lab

WaitUntil = Callable[[Callable[[], object]], None]
ProcessesOf = Callable[[Path], list[psutil.Process]]

PROJECT = Path(__file__).resolve().parents[2]
SLEEP = "/bin/sleep"
SERVERS = ("database", "cache", "web")


@pytest.fixture
def directory(tmp_path: Path, processes_of: ProcessesOf) -> Iterator[Path]:
    """A directory for one lab; whatever the test does, nothing may run in it afterwards."""
    path = tmp_path / "lab"
    yield path
    if (path / "lab.json").exists():
        stop_lab(path)
    left = processes_of(path)
    for process in left:
        process.kill()
    assert not left


def supervisor_of(directory: Path) -> psutil.Process:
    records = json.loads((directory / "processes.json").read_text(encoding="utf-8"))
    return psutil.Process(records["supervisor"]["pid"])


def test_stop_leaves_no_process_no_socket_and_no_shared_memory(directory: Path, processes_of: ProcessesOf) -> None:
    lab = start_lab(directory, SERVERS)
    assert {"valkey-server", "nginx", "postgres"} <= {process.name() for process in processes_of(directory)}
    segments = shared_memory_of(directory / "postgres" / "data")
    assert segments
    assert lab.control.exists()
    stop_lab(directory)
    assert processes_of(directory) == []
    assert not lab.control.exists()
    assert not (directory / "processes.json").exists()
    assert segments.isdisjoint(shared_memory())


def shared_memory() -> set[str]:
    """Numbers of the System V segments there are."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]}


def shared_memory_of(data: Path) -> set[str]:
    """Number of the segment that a data directory's PostgreSQL says it uses, if it exists."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return set()
    return set(lines[6].split()[1:]) & shared_memory() if len(lines) > 6 else set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil, number: signal.Signals) -> None:
    lab = start_lab(directory, ("cache", "web"))
    supervisor = supervisor_of(directory)
    supervisor.send_signal(number)
    wait_until(lambda: not supervisor.is_running())
    assert processes_of(directory) == []
    assert not lab.control.exists()


def test_after_a_kill_the_next_start_ends_what_was_left(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil) -> None:
    first = start_lab(directory, SERVERS)
    with redis.Redis.from_url(first.cache.url("monitor")) as client:
        client.set("kept", "yes")
        client.save()
    supervisor_of(directory).kill()
    # A bystander in the same directory, in a session of its own, is nobody's survivor.
    bystander = subprocess.Popen([SLEEP, "60"], cwd=directory / "nginx", start_new_session=True)
    survivors = [process for process in processes_of(directory) if process.pid != bystander.pid and process.name() != "python"]
    assert {"valkey-server", "nginx", "postgres"} <= {process.name() for process in survivors}
    try:
        second = start_lab(directory, SERVERS)
        wait_until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in survivors))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    # The same ports, logins and data as before.
    assert (second.database, second.cache, second.web) == (first.database, first.cache, first.web)
    with redis.Redis.from_url(second.cache.url("monitor")) as client:
        assert client.get("kept") == b"yes"
    with psycopg.connect(second.database.conninfo("application")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_orphans_of_killed_masters_go_too(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil) -> None:
    """The main processes are gone; what they started still holds ports and shared memory."""
    lab = start_lab(directory, ("database", "web"))
    segments = shared_memory_of(directory / "postgres" / "data")
    assert segments
    with psycopg.connect(lab.database.conninfo("application")) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        records = json.loads((directory / "processes.json").read_text(encoding="utf-8"))
        supervisor_of(directory).kill()
        for record in records["services"].values():
            psutil.Process(record["pid"]).kill()
        assert "nginx" in {process.name() for process in processes_of(directory)}
        stop_lab(directory)
    wait_until(lambda: processes_of(directory) == [])
    assert segments.isdisjoint(shared_memory())


def test_a_kill_in_the_middle_of_the_first_start_spoils_nothing(directory: Path, wait_until: WaitUntil) -> None:
    draft = directory / "postgres" / "data.new"
    segments: list[set[str]] = []

    def creates() -> bool:
        segments.append(shared_memory_of(draft))
        return bool(segments[-1])

    command = [sys.executable, "-m", "compose.supervisor", "--directory", str(directory), "--services", "database"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL) as starting:
        wait_until(creates)
        starting.kill()
    lab = start_lab(directory, ("database",))
    with psycopg.connect(lab.database.conninfo("monitor")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("evenkeel_monitor",)
    assert not draft.exists()
    assert segments[-1].isdisjoint(shared_memory())


def test_a_recycled_process_number_is_left_alone(directory: Path) -> None:
    """The record says a pid, but the process of that number started at another time: it is somebody else."""
    start_lab(directory, ("cache",))
    stop_lab(directory)
    stranger = subprocess.Popen([SLEEP, "60"])
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        record = {"pid": stranger.pid, "start_ticks": 1, "log": str(directory / "log" / "cache.log"), "stop_signals": [[15, 1.0]]}
        (directory / "processes.json").write_text(json.dumps({"boot": boot, "supervisor": record, "services": {"cache": record}}))
        start_lab(directory, ("cache",))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_start_in_the_same_directory_is_refused(directory: Path) -> None:
    start_lab(directory, ("cache",))
    supervisor = supervisor_of(directory)
    with pytest.raises(LabError, match=r"already; end it with `python -m compose\.lab down"):
        start_lab(directory, ("cache",))
    assert supervisor.is_running()


def test_a_lab_ends_with_the_program_that_runs_it(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil) -> None:
    program = (
        "import pathlib, time\nfrom compose.lab import lab_running\n"
        f"with lab_running(pathlib.Path({str(directory)!r}), ['cache']):\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT)
    try:
        wait_until(lambda: (directory / "control.sock").exists() and "valkey-server" in {p.name() for p in processes_of(directory)})
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: processes_of(directory) == [])
    assert not (directory / "control.sock").exists()


def test_a_lab_that_does_not_come_up_leaves_nothing(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil) -> None:
    with lab_running(directory, ("web",)) as lab:
        port = lab.web.port
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: any(one.status == psutil.CONN_LISTEN for one in psutil.Process(other.pid).net_connections()))
        with pytest.raises(LabError, match=f"web: another program took port {port}"):
            start_lab(directory, ("cache", "web"))
    finally:
        other.kill()
        other.wait()
    wait_until(lambda: processes_of(directory) == [])
    assert not lab.control.exists()


def test_a_server_that_can_not_start_is_named_with_its_log(directory: Path, processes_of: ProcessesOf, wait_until: WaitUntil) -> None:
    """The data directory is somebody else's file: PostgreSQL refuses it."""
    with lab_running(directory, ("database",)):
        pass
    (directory / "postgres" / "data" / "PG_VERSION").write_text("9\n", encoding="ascii")
    with pytest.raises(LabError, match=r"database ended with exit code 1; read .*/log/database\.log"):
        start_lab(directory, ("database", "cache"))
    wait_until(lambda: processes_of(directory) == [])
