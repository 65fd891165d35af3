"""What the supervisor does to a service on request, checked from outside of it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import httpx
import psutil
import psycopg
import pytest
import redis

from compose.description import LabDescription

Call = Callable[..., httpx.Response]
WaitUntil = Callable[[Callable[[], object]], None]
StartLab = Callable[..., AbstractContextManager[LabDescription]]

SERVICES = ("database", "cache", "web")


@pytest.fixture(scope="module")
def servers(start_partial_lab: StartLab) -> Iterator[LabDescription]:
    with start_partial_lab(*SERVICES) as lab:
        yield lab


def answers(lab: LabDescription, service: str) -> bool:
    """Whether that server serves, asked in its own protocol."""
    try:
        match service:
            case "database":
                with psycopg.connect(lab.database.conninfo("application"), connect_timeout=2) as connection:
                    return connection.execute("SELECT 1").fetchone() == (1,)
            case "cache":
                with redis.Redis.from_url(lab.cache.url("monitor"), socket_timeout=2) as client:
                    return bool(client.ping())
            case _:
                return httpx.get(lab.web.url, timeout=2).status_code == 200
    except (psycopg.OperationalError, redis.ConnectionError, httpx.TransportError):
        return False


@pytest.fixture(autouse=True)
def _all_run(servers: LabDescription, call: Call) -> Iterator[None]:
    yield
    for service in SERVICES:
        if call(servers, "GET", f"/services/{service}").json()["state"] != "running":
            call(servers, "POST", f"/services/{service}/start").raise_for_status()


def test_every_service_is_listed_with_its_process(servers: LabDescription, call: Call) -> None:
    listed = call(servers, "GET", "/services").json()
    assert [state["name"] for state in listed] == list(SERVICES)
    for state in listed:
        assert set(state) == {"name", "state", "pid", "started_at", "exit_code", "starts"}
        assert state["state"] == "running"
        assert abs(psutil.Process(state["pid"]).create_time() - state["started_at"]) < 2


@pytest.mark.parametrize("service", SERVICES)
def test_stop_ends_every_process_and_start_serves_again(servers: LabDescription, call: Call, service: str) -> None:
    before = call(servers, "GET", f"/services/{service}").json()
    tree = [psutil.Process(before["pid"]), *psutil.Process(before["pid"]).children(recursive=True)]

    stopped = call(servers, "POST", f"/services/{service}/stop").json()
    assert (stopped["state"], stopped["pid"], stopped["started_at"]) == ("stopped", None, None)
    assert not any(process.is_running() for process in tree)
    assert not answers(servers, service)

    started = call(servers, "POST", f"/services/{service}/start").json()
    assert answers(servers, service), "start must answer when the service is ready, not earlier"
    assert started["state"] == "running"
    assert started["pid"] != before["pid"]
    assert started["starts"] == before["starts"] + 1


@pytest.mark.parametrize("service", SERVICES)
def test_restart_gives_a_new_process_that_serves(servers: LabDescription, call: Call, service: str) -> None:
    before = call(servers, "GET", f"/services/{service}").json()
    after = call(servers, "POST", f"/services/{service}/restart").json()
    assert answers(servers, service)
    assert after["pid"] != before["pid"]
    assert not psutil.pid_exists(before["pid"])
    assert after["started_at"] > before["started_at"]


def test_restart_starts_a_stopped_service(servers: LabDescription, call: Call) -> None:
    call(servers, "POST", "/services/cache/stop").raise_for_status()
    assert call(servers, "POST", "/services/cache/restart").json()["state"] == "running"
    assert answers(servers, "cache")


def test_a_killed_service_stays_dead_until_it_is_started(servers: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    before = call(servers, "GET", "/services/cache").json()
    psutil.Process(before["pid"]).kill()
    wait_until(lambda: call(servers, "GET", "/services/cache").json()["state"] != "running")
    # No zombie, and nobody brought it back.
    assert not psutil.pid_exists(before["pid"])
    dead = call(servers, "GET", "/services/cache").json()
    assert (dead["state"], dead["pid"], dead["exit_code"], dead["starts"]) == ("exited", None, -signal.SIGKILL, before["starts"])
    assert not answers(servers, "cache")
    assert call(servers, "POST", "/services/cache/stop").status_code == 409
    call(servers, "POST", "/services/cache/start").raise_for_status()
    assert answers(servers, "cache")


@pytest.mark.parametrize("service", SERVICES)
def test_a_frozen_service_is_restarted(servers: LabDescription, call: Call, service: str) -> None:
    pid = call(servers, "GET", f"/services/{service}").json()["pid"]
    assert call(servers, "POST", f"/services/{service}/signal", signal="SIGSTOP").status_code == 200
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    began = time.monotonic()
    call(servers, "POST", f"/services/{service}/restart").raise_for_status()
    assert answers(servers, service)
    assert time.monotonic() - began < 5


def test_a_frozen_backend_does_not_hold_up_a_restart(servers: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    with psycopg.connect(servers.database.conninfo("application")) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        began = time.monotonic()
        call(servers, "POST", "/services/database/restart").raise_for_status()
        assert time.monotonic() - began < 4
    wait_until(lambda: not backend.is_running())
    assert answers(servers, "database")


def test_workers_of_a_killed_nginx_go_before_the_next_start(servers: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    master = psutil.Process(call(servers, "GET", "/services/web").json()["pid"])
    workers = master.children()
    assert workers
    master.kill()
    wait_until(lambda: call(servers, "GET", "/services/web").json()["state"] == "exited")
    assert all(worker.is_running() for worker in workers), "orphaned workers serve on: that is what the next start has to cope with"
    call(servers, "POST", "/services/web/start").raise_for_status()
    assert answers(servers, "web")
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    # The supervisor adopted them, and reaps them.
    wait_until(lambda: not any(worker.is_running() for worker in workers))


def test_backends_of_a_killed_postgres_go_before_the_next_start(servers: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    postmaster = psutil.Process(call(servers, "GET", "/services/database").json()["pid"])
    with psycopg.connect(servers.database.conninfo("application")) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        # Frozen, so that it can't notice the end of its parent by itself.
        backend.suspend()
        postmaster.kill()
        wait_until(lambda: call(servers, "GET", "/services/database").json()["state"] == "exited")
        call(servers, "POST", "/services/database/start").raise_for_status()
    assert answers(servers, "database")
    wait_until(lambda: not backend.is_running())


def test_sighup_reaches_the_main_process(servers: LabDescription, call: Call, wait_until: WaitUntil) -> None:
    """Nginx takes a changed configuration with SIGHUP, and keeps its master."""
    pid = call(servers, "GET", "/services/web").json()["pid"]
    path = servers.web.config_path
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(original.replace("The lab's page.", "Another page."), encoding="utf-8")
        assert call(servers, "POST", "/services/web/signal", signal="SIGHUP").json()["pid"] == pid
        wait_until(lambda: httpx.get(servers.web.url).text == "Another page.\n")
    finally:
        path.write_text(original, encoding="utf-8")
    call(servers, "POST", "/services/web/signal", signal="SIGHUP").raise_for_status()
    wait_until(lambda: httpx.get(servers.web.url).text == "The lab's page.\n")


@pytest.mark.parametrize(
    ("service", "text"), [("database", "ready to accept connections"), ("cache", "Ready to accept"), ("web", "start worker")]
)
def test_the_log_has_the_servers_words(servers: LabDescription, call: Call, service: str, text: str) -> None:
    lines = call(servers, "GET", f"/services/{service}/log", lines="200").json()["lines"]
    assert any(text in line for line in lines)
    assert call(servers, "GET", f"/services/{service}/log", lines="2").json()["lines"] == lines[-2:]


def test_no_password_is_logged(servers: LabDescription, call: Call) -> None:
    passwords = {login.password for login in (*servers.database.logins.values(), *servers.cache.logins.values())}
    for service in SERVICES:
        log = servers.log_path(service).read_text(encoding="utf-8")
        assert not [password for password in passwords if password in log]
    assert not [password for password in passwords if password in repr(servers)]


def test_wrong_states_are_conflicts(servers: LabDescription, call: Call) -> None:
    running = call(servers, "POST", "/services/cache/start")
    assert running.status_code == 409
    assert "runs already" in running.json()["error"]
    call(servers, "POST", "/services/cache/stop").raise_for_status()
    for path, query in (("stop", {}), ("signal", {"signal": "SIGHUP"})):
        stopped = call(servers, "POST", f"/services/cache/{path}", **query)
        assert stopped.status_code == 409
        assert "it is stopped" in stopped.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/services/mail", 404, "known: database, cache, web"),
        ("POST", "/services/mail/start", 404, "mail"),
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/services/cache/stop", 405, "Method Not Allowed"),
        ("POST", "/services/cache/signal?signal=SIGNOT", 400, "signal"),
        ("POST", "/services/cache/signal", 400, "signal"),
        ("GET", "/services/cache/log?lines=0", 400, "lines"),
        ("GET", "/services/cache/log?lines=many", 400, "lines"),
        ("GET", "/services/cache/log?lines=-1", 400, "lines"),
    ],
)
def test_bad_requests_say_what_is_wrong(servers: LabDescription, method: str, path: str, status: int, words: str) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(servers.control)), base_url="http://lab") as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_service_that_ends_at_its_start_is_reported(servers: LabDescription, call: Call) -> None:
    path = servers.web.config_path
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text("nonsense;\n", encoding="utf-8")
        answer = call(servers, "POST", "/services/web/restart")
        assert answer.status_code == 500
        assert str(servers.log_path("web")) in answer.json()["error"]
        assert call(servers, "GET", "/services/web").json()["state"] == "exited"
        assert any("nonsense" in line for line in call(servers, "GET", "/services/web/log", lines="5").json()["lines"])
    finally:
        path.write_text(original, encoding="utf-8")
