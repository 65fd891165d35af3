"""Limits and replicas of real containers; what became of them is read by Docker's own command line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks.schema import Limits
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.tools.containers_limits import Scale, UpdateLimits, docker_scale, docker_update_limits
from tests.tasks.engine import IMAGE, client_of, container, docker, inspected

pytestmark = pytest.mark.docker
MIB = 2**20
LIMITS = Limits(memory_mib=96, cpus=1, replicas=3)
PROJECT = "evenkeel-containers-scale"
FILE = f"""\
name: {PROJECT}
services:
  app:
    image: {IMAGE}
    command: sleep ${{APP_SECONDS}}
    init: true
    network_mode: none
    labels: {{evenkeel.owner: containers}}
"""


def limits(name: str) -> tuple[int, int, int]:
    host = inspected(name)["HostConfig"]
    return host["Memory"] // MIB, host["MemorySwap"] // MIB, host["NanoCpus"] // 10_000_000


async def test_limits_go_up_within_their_bound_and_back() -> None:
    with container("--memory", "64m", "--memory-swap", "80m", "--cpus", "0.5") as name:
        started_at = inspected(name)["State"]["StartedAt"]
        async with client_of(name, limits=LIMITS) as client:
            change = await docker_update_limits(client, UpdateLimits(memory_mib=96, cpus=1))
            assert limits(name) == (96, 112, 100)
            assert change.before == {"memory_limit_mib": 64, "memory_and_swap_mib": 80, "cpus_limit": 0.5}
            assert change.after == {"memory_limit_mib": 96, "memory_and_swap_mib": 112, "cpus_limit": 1}
            assert change.undo is not None
            undone = await docker_update_limits(client, UpdateLimits.model_validate(change.undo))
            assert (limits(name), undone.after) == ((64, 80, 50), change.before)
            one = await docker_update_limits(client, UpdateLimits(cpus=0.75))
            assert (limits(name), one.undo) == ((64, 80, 75), {"memory_mib": None, "cpus": 0.5})
            for beyond, said in ((UpdateLimits(memory_mib=97), "limits.memory_mib"), (UpdateLimits(cpus=1.5), "limits.cpus")):
                with pytest.raises(NotApplicable, match=f"is above {said}"):
                    await docker_update_limits(client, beyond)
            with pytest.raises(ToolFailed, match="Minimum memory limit"):
                await docker_update_limits(client, UpdateLimits.model_construct(memory_mib=1, cpus=None))
            assert (limits(name), inspected(name)["State"]["StartedAt"]) == ((64, 80, 75), started_at)
    with pytest.raises(ValidationError, match="give one of them"):
        UpdateLimits()


async def test_a_container_without_limits_gets_none_and_one_by_quota_keeps_its_period() -> None:
    with container("--cpu-quota", "20000", "--cpu-period", "50000") as name:
        async with client_of(name) as client:
            with pytest.raises(NotApplicable, match="no memory limit"):
                await docker_update_limits(client, UpdateLimits(memory_mib=64))
            await docker_update_limits(client, UpdateLimits(cpus=0.8))
            host = inspected(name)["HostConfig"]
            assert (host["CpuQuota"], host["CpuPeriod"], host["NanoCpus"]) == (40_000, 50_000, 0)
            with pytest.raises(NotApplicable, match="compose did not make this container"):
                await docker_scale(client, Scale(replicas=2))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project of compose with one service of one replica; its variable is in a file of its own."""
    file = tmp_path / "compose.yaml"
    file.write_text(FILE, encoding="utf-8")
    (tmp_path / ".env").write_text("APP_SECONDS=3600\n", encoding="utf-8")
    compose(file, "up", "--detach")
    yield file
    compose(file, "down", "--timeout", "1")


def compose(file: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "docker-compose"), "--file", str(file), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=dict(os.environ))


def replicas() -> set[str]:
    return set(docker("ps", "--filter", f"label=com.docker.compose.project={PROJECT}", "--format", "{{.Names}}").split())


async def test_replicas_come_and_go_and_the_running_one_stays(project: Path) -> None:
    first = f"{PROJECT}-app-1"
    started_at = inspected(first)["State"]["StartedAt"]
    async with client_of(first, limits=LIMITS) as client:
        change = await docker_scale(client, Scale(replicas=2))
        assert replicas() == {first, f"{PROJECT}-app-2"}
        assert (change.before, change.after, change.undo) == ({"replicas": 1}, {"replicas": 2}, {"replicas": 1})
        assert (await docker_scale(client, Scale(replicas=2))).undo is None
        assert change.undo is not None
        await docker_scale(client, Scale.model_validate(change.undo))
        assert replicas() == {first}
        with pytest.raises(NotApplicable, match=r"more than limits\.replicas, which is 3"):
            await docker_scale(client, Scale(replicas=4))
        (project.parent / ".env").unlink()
        with pytest.raises(NotApplicable, match="lack a variable"):
            await docker_scale(client, Scale(replicas=2))
        text = project.read_text(encoding="utf-8")
        project.unlink()
        with pytest.raises(NotApplicable, match="files are not on this machine"):
            await docker_scale(client, Scale(replicas=2))
        project.write_text(text.replace("${APP_SECONDS}", "3600"), encoding="utf-8")
    assert (replicas(), inspected(first)["State"]["StartedAt"]) == ({first}, started_at)
