"""What /proc tells of a real Nginx, against psutil, and what a master's title tells."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import psutil
import pytest

from compose.description import LabDescription
from tasks.clients.nginx_processes import parse_title, read_invocation, read_open_files, read_processes, send_signal
from tasks.core.errors import NotApplicable
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test, wait_until


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    async with nginx_under_test(fresh_web) as found:
        yield found


async def test_workers_and_their_connections_are_those_of_the_kernel(nginx: NginxUnderTest) -> None:
    await nginx.configure(lambda text: text.replace("worker_processes 1;", "worker_processes 3;"))
    await nginx.hold(40)
    found = read_processes(nginx.master().pid)
    assert found is not None
    assert {worker.pid for worker in found.of("serving")} == nginx.serving()
    assert len(found.workers) == 3
    for worker in found.workers:
        assert worker.connections == nginx.established({worker.pid})
        assert abs(worker.started_at - psutil.Process(worker.pid).create_time()) < 1.1  # psutil's is up to a second off
    assert sum(worker.connections or 0 for worker in found.workers) == 40


async def test_draining_and_stopped_workers_are_told_apart(nginx: NginxUnderTest) -> None:
    [frozen] = nginx.serving()
    nginx.freeze(frozen)
    nginx.master().send_signal(signal.SIGHUP)
    await wait_until(lambda: len(nginx.serving()) == 2, "a new worker beside the stopped one")
    [draining] = nginx.serving() - {frozen}
    await nginx.hold(3)
    nginx.master().send_signal(signal.SIGHUP)
    await wait_until(lambda: "shutting down" in nginx.workers()[draining], "the second worker steps back")
    found = read_processes(nginx.master().pid)
    assert found is not None
    states = {worker.pid: worker.state for worker in found.workers}
    assert states.pop(frozen) == "stopped"
    assert states.pop(draining) == "draining"
    assert list(states.values()) == ["serving"]


async def test_the_invocation_is_what_the_kernel_says(nginx: NginxUnderTest) -> None:
    master = nginx.master()
    found = read_invocation(master.pid)
    assert found is not None
    assert found.executable == os.readlink(f"/proc/{master.pid}/exe")
    assert found.config_path == str(nginx.config_path)
    assert found.directives == "daemon off;"


def test_another_process_is_no_master() -> None:
    assert read_processes(os.getpid()) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert read_processes(ended.pid) is None
        assert read_invocation(ended.pid) is None
        assert read_open_files(ended.pid) is None


def test_the_limit_of_open_files_is_the_kernels() -> None:
    assert read_open_files(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_a_signal_reaches_only_the_process_that_was_seen() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        started = int(psutil.Process(sleeper.pid).create_time())  # some other process with this pid
        with pytest.raises(NotApplicable, match="is gone"):
            send_signal((sleeper.pid, started), signal.SIGTERM)
        assert sleeper.poll() is None
        sleeper.kill()


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("nginx: master process nginx -g daemon off;", (None, None, "daemon off;")),
        ("nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", (None, None, "daemon on; master_process on;")),
        ("nginx: master process nginx -p /srv/a b/ -c conf/n.conf -e stderr -g pid /x;", ("/srv/a b/", "conf/n.conf", "pid /x;")),
        ("nginx: master process ./nginx -c/etc/nginx.conf", (None, "/etc/nginx.conf", None)),
        ("nginx: master process nginx", (None, None, None)),
    ],
)
def test_a_title_gives_the_options(title: str, expected: tuple[str | None, ...]) -> None:
    found = parse_title(title, "/usr/sbin/nginx", "/")
    assert (found.prefix, found.config, found.directives) == expected


def test_options_are_given_again_for_another_file() -> None:
    found = parse_title("nginx: master process nginx -p /srv -c n.conf -g daemon off;", "/usr/sbin/nginx", "/work")
    assert found.arguments("-t", config="/srv/.draft") == ["/usr/sbin/nginx", "-t", "-p", "/srv", "-c", "/srv/.draft", "-g", "daemon off;"]
    assert found.config_path == "/srv/n.conf"
    assert parse_title("nginx: master process nginx", "/usr/sbin/nginx", "/work").arguments("-v") == ["/usr/sbin/nginx", "-v"]
