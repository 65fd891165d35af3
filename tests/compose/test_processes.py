"""Processes are known by number and start, and a service's processes by the log they write to."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from compose.processes import Identity, Trace, descendants, end, identify, is_alive, kill, send, traced, wait_gone

WaitUntil = Callable[[Callable[[], object]], None]

SHELL = "/bin/sh"
SLEEP = "/bin/sleep"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([SLEEP, "60"]) as process:
        yield process
        process.kill()


def identity_of(process: subprocess.Popen[bytes]) -> Identity:
    identity = identify(process.pid)
    assert identity is not None
    return identity


def test_the_same_number_with_another_start_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    other = Identity(identity.pid, identity.start_ticks + 1)
    assert is_alive(identity)
    assert not is_alive(other)
    assert not send(other, signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_zombie_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    sleeper.kill()
    # Seen, but not reaped.
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_alive(identity)
    assert identify(sleeper.pid) is None


def test_a_name_with_parentheses_and_spaces_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    shutil.copy(SLEEP, program)
    with subprocess.Popen([program, "60"]) as process:
        identity = identity_of(process)
        expected = psutil.Process(process.pid).create_time()
        ticks_a_second = os.sysconf("SC_CLK_TCK")
        assert identity.start_ticks / ticks_a_second + psutil.boot_time() == pytest.approx(expected, abs=2)
        process.kill()


def test_a_process_that_ignores_its_stop_signal_is_killed_with_all_it_started(tmp_path: Path, wait_until: WaitUntil) -> None:
    log = tmp_path / "log"
    script = f"trap '' TERM; {SLEEP} 60 & {SLEEP} 61 & wait; wait"
    with log.open("wb") as output, subprocess.Popen([SHELL, "-c", script], stdout=output, start_new_session=True) as process:
        main = identity_of(process)
        wait_until(lambda: len(descendants(main)) == 2)
        members = {main} | descendants(main)
        assert asyncio.run(end(main, Trace(log), ((signal.SIGTERM, 0.1),))) == set()
        assert not any(is_alive(member) for member in members)


def test_a_frozen_process_stops_by_its_own_signal(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    psutil.Process(sleeper.pid).suspend()
    assert asyncio.run(end(identity_of(sleeper), Trace(tmp_path / "log"), ((signal.SIGTERM, 5),))) == set()
    assert sleeper.wait(5) == -signal.SIGTERM


def test_orphans_in_sessions_of_their_own_are_found_by_their_log(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "log")
    trace.log.touch()
    assert traced(trace) == set()
    with trace.log.open("ab") as output:
        subprocess.run([SHELL, "-c", f"{SLEEP} 60 &"], stdout=output, start_new_session=True, check=True)
    with trace.log.open("rb") as reader, subprocess.Popen([SLEEP, "60"], stdin=reader) as bystander:
        (orphan,) = traced(trace)
        trace.log.unlink()
        assert traced(trace) == {orphan}, "also when the file is gone"
        assert asyncio.run(kill({orphan})) == set()
        assert bystander.poll() is None
        bystander.kill()


def test_waiting_ends_at_its_deadline(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper)
    assert asyncio.run(wait_gone({identity}, 0.05)) == {identity}
