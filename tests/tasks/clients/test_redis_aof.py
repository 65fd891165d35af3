"""How much of an append-only file can be read, and its repaired copy."""

import io
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clients.redis_aof import last_increment, readable_bytes, repair
from tasks.core.errors import NotApplicable

Command = list[bytes]


def written(command: Command) -> bytes:
    """A command as the server writes it."""
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)


COMMANDS = st.lists(st.tuples(st.sampled_from([b"SET", b"del", b"X" * 70]), st.binary(max_size=80)).map(list), max_size=6)


@given(commands=COMMANDS, cut=st.integers(0, 200), block=st.sampled_from([b"", b"\0" * 64]))
def test_of_a_file_that_was_cut_the_whole_commands_are_kept(commands: list[Command], cut: int, block: bytes) -> None:
    whole = [written(command) for command in commands]
    left = b"".join(whole)[: max(0, sum(map(len, whole)) - cut)]
    ends = itertools.accumulate(map(len, whole), initial=0)

    assert readable_bytes(io.BytesIO(left + block)) == max(end for end in ends if end <= len(left))


@given(commands=COMMANDS, rest=st.sampled_from([b"*3\r\n", b"*0\r\n", b"$1\r\na\r\n", b"*1\r\n$-1\r\n", b"*99999999\r\n", b"SET a 1\r\n"]))
def test_what_is_no_command_ends_what_can_be_read(commands: list[Command], rest: bytes) -> None:
    text = b"".join(map(written, commands))

    assert readable_bytes(io.BytesIO(text + rest)) == len(text)
    assert readable_bytes(io.BytesIO(text + b"#TS:1700000000\r\n" + rest)) == len(text) + 16


@pytest.mark.parametrize(("last", "kept"), [([], 2), ([[b"exec"]], 5)], ids=["open", "ended"])
def test_a_transaction_counts_only_when_it_has_ended(last: list[Command], kept: int) -> None:
    commands = [[b"SELECT", b"0"], [b"SET", b"a", b"1"], [b"MULTI"], [b"SET", b"b", b"2"], *last]

    found = readable_bytes(io.BytesIO(b"".join(map(written, commands)) + b"*2\r\n$3"))

    assert found == len(b"".join(map(written, commands[:kept])))


def test_a_repair_keeps_the_broken_file_and_can_be_taken_back(tmp_path: Path) -> None:
    directory = tmp_path / "appendonlydir"
    directory.mkdir()
    (directory / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n", encoding="utf-8"
    )
    path, good = directory / "appendonly.aof.1.incr.aof", written([b"SET", b"a", b"1"])
    path.write_bytes(good + b"*3\r\n$3\r\nSE")
    path.chmod(0o640)

    assert last_increment({"dir": str(tmp_path)}) == path
    repaired = repair(path)

    assert path.read_bytes() == good
    assert path.stat().st_mode & 0o777 == 0o640
    assert repaired.broken.read_bytes() == good + b"*3\r\n$3\r\nSE"
    assert (repaired.size, repaired.readable) == (len(good) + 10, len(good))
    with pytest.raises(NotApplicable, match="nothing was repaired"):
        repair(path)
    repaired.put_back()
    assert path.read_bytes() == good + b"*3\r\n$3\r\nSE"


@pytest.mark.parametrize(
    ("manifest", "settings", "why"),
    [
        (None, {"dir": "data"}, "no absolute dir"),
        (None, {}, "can't be read here"),
        ("file a.rdb seq 1 type b\n", {}, "no increment"),
        ("file ../../etc/passwd seq 1 type i\n", {}, "no increment"),
    ],
)
def test_without_an_increment_there_is_nothing_to_repair(manifest: str | None, settings: dict[str, str], why: str, tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    if manifest is not None:
        (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text(manifest, encoding="utf-8")

    with pytest.raises(NotApplicable, match=why):
        last_increment({"dir": str(tmp_path), **settings})
