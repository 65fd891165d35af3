"""An engine of this project's own, beside the one that runs: it shares neither socket nor data nor network with that."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from compose import engine
from compose.description import LabError

# In a network of its own: dockerd makes, and removes, the bridge and the firewall's rules of every other one.
ASIDE = ("unshare", "--net", "dockerd", "--containerd-namespace=aside", "--containerd-plugins-namespace=aside-plugins")

ProcessesOf = Callable[[Path], list[psutil.Process]]


def test_no_engine_is_an_error_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert not engine.is_running()
    with pytest.raises(LabError, match=r"no container engine answers at .*no\.sock; start Docker"):
        engine.connect()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="only root can start one"):
        engine.ensure_engine(tmp_path)
    assert not engine.stop_engine(tmp_path)


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dockerd") is None, reason="only root can start dockerd, where it is installed")
def test_an_engine_is_started_used_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes_of: ProcessesOf) -> None:
    assert not engine.ensure_engine(tmp_path), "the one that runs is used"
    directory = Path(f"/run/evenkeel-aside-{os.getpid()}")  # short: sockets lie below it
    monkeypatch.setenv("DOCKER_HOST", f"unix://{directory}/docker.sock")
    try:
        assert engine.ensure_engine(directory, ASIDE)
        assert not engine.ensure_engine(directory, ASIDE), "it runs already"
        client = engine.connect()
        assert client.info()["DockerRootDir"] == str(directory / "data")
        client.close()
        assert processes_of(directory)
        assert engine.stop_engine(directory)
        assert processes_of(directory) == []
        assert [path.name for path in directory.iterdir()] == ["dockerd.log"]
        with pytest.raises(LabError, match="dockerd did not start; its log ends with"):
            engine.ensure_engine(directory, ("dockerd", "--no-such-option"))
    finally:
        engine.stop_engine(directory)
        shutil.rmtree(directory)
    monkeypatch.delenv("DOCKER_HOST")
    assert engine.is_running(), "the other one is untouched"
