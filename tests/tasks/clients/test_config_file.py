"""A file that is replaced whole or not at all, whoever works on it and whenever it ends."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tasks.clients.config_file import ConfigFile, discard
from tasks.core.errors import NotApplicable, ToolFailed

OLD = b"user www;\r\n# caf\xe9\nevents {}\n"


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    path = tmp_path / "nginx.conf"
    path.write_bytes(OLD)
    path.chmod(0o640)
    return ConfigFile(path)


def others(file: ConfigFile) -> list[str]:
    return [path.name for path in file.path.parent.iterdir() if path != file.path]


def test_a_draft_is_no_change_until_it_is_put(file: ConfigFile) -> None:
    content = file.read()
    draft = file.draft(content.text.replace("www", "web"), content)
    assert file.path.read_bytes() == OLD
    assert draft.path.parent == file.path.parent
    file.put(draft)
    assert file.path.read_bytes() == OLD.replace(b"www", b"web")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640
    assert others(file) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(file: ConfigFile) -> None:
    os.chown(file.path, 65534, 65534)
    content = file.read()
    file.put(file.draft("events {}", content))
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o640)


def test_a_discarded_draft_leaves_nothing(file: ConfigFile) -> None:
    discard(file.draft("events {}", file.read()))
    assert others(file) == []
    assert file.path.read_bytes() == OLD


def test_somebody_elses_change_is_not_overwritten(file: ConfigFile) -> None:
    content = file.read()
    file.path.write_bytes(b"theirs")
    draft = file.draft("ours", content)
    with pytest.raises(ToolFailed, match="somebody changed it"):
        file.put(draft)
    assert file.path.read_bytes() == b"theirs"


def test_what_a_crash_left_is_swept_away(file: ConfigFile) -> None:
    file.draft("half of a", file.read())
    file.path.with_name("nginx.conf.bak").write_text("a person's own copy")
    draft = file.draft("events {}", file.read())
    assert sorted(others(file)) == sorted([draft.path.name, "nginx.conf.bak"])


def test_a_directory_that_is_gone_is_named(file: ConfigFile) -> None:
    content = file.read()
    file.path.unlink()
    with pytest.raises(NotApplicable, match=r"nginx\.conf: can't be read \(No such file"):
        file.read()
    draft = file.draft("events {}", content)
    with pytest.raises(ToolFailed, match="is gone"):
        file.put(draft)


async def test_one_at_a_time(file: ConfigFile) -> None:
    order: list[str] = []

    async def work(name: str) -> None:
        async with file.locked():
            order.append(f"{name} in")
            await asyncio.sleep(0.03)
            order.append(f"{name} out")

    await asyncio.gather(work("a"), work("b"))
    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])


async def test_the_wait_for_the_lock_ends(file: ConfigFile) -> None:
    async with file.locked():
        with pytest.raises(NotApplicable, match="another change of this configuration is under way"):
            async with file.locked(deadline_seconds=0.05):
                pytest.fail("both hold the lock")
    async with file.locked(deadline_seconds=0.05):
        pass


def test_a_copy_is_kept_beside_the_file_for_the_same_eyes(file: ConfigFile) -> None:
    assert file.kept("known-good") is None
    content = file.read()
    file.keep("known-good", content)
    file.path.write_bytes(b"events {}")
    file.keep("replaced", file.read())
    assert (file.kept("known-good"), file.kept("replaced")) == (content.text, "events {}")
    assert sorted(others(file)) == [".nginx.conf.known-good", ".nginx.conf.replaced"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()} == {0o640}
    file.draft("sweeps drafts away, and no copy", file.read())
    assert file.kept("known-good") == content.text
