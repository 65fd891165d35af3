"""The query command, run as a user runs it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.models import FixRecord, Step, Verdict
from tasks.records.__main__ import main
from tasks.records.repository import Records

ROOT = Path(__file__).parents[3]
NOW = datetime.now(UTC)
MakeRecord = Callable[..., FixRecord]


@pytest.fixture
def place(tmp_path: Path, make_record: MakeRecord) -> str:
    """Records of an old fix, a young one, and one that is open and has begun a step."""

    async def fill(url: str) -> None:
        async with await Records.open(url) as records:
            for fix_id, resource, days in (("old", "shop-db", 40), ("young", "shop-cache", 2)):
                when = NOW - timedelta(days=days)
                record = make_record(fix_id, resource=resource, opened_at=when)
                await records.open_fix(record, "me", when)
                await records.close_fix(record, "me", Verdict.COMPLETED, "[bold]memory \x1b[31mfell[/]", when)
            await records.open_fix(make_record("open", opened_at=NOW), "me", NOW)
            await records.begin_step("open", "me", 0, Step(tool="redis_evict_to", target="shop-cache", why="frees memory"), NOW)

    url = f"sqlite:///{tmp_path}/.evenkeel/records.db"
    asyncio.run(fill(url))
    return url


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "tasks.records", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_url_the_file_below_the_working_directory_is_read(place: str, tmp_path: Path) -> None:
    result = run("list", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [record["id"] for record in json.loads(result.stdout)] == ["open", "young", "old"]


def test_list_is_a_table_of_what_was_asked_for(place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--url", place, "list", "--resource", "shop-cache", "--since", "30d", "--verdict", "Completed"]) == 0
    shown = capsys.readouterr().out
    assert "young" in shown
    assert "old" not in shown
    assert "1 fix(es)" in shown


def test_show_tells_of_interrupted_steps_and_keeps_the_terminal_safe(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "open", "--url", place]) == 0
    assert "interrupted steps" in capsys.readouterr().out
    assert main(["show", "young", "--url", place]) == 0
    shown = capsys.readouterr().out
    assert "[bold]memory" in shown
    assert "\x1b" not in shown
    assert main(["show", "open", "--url", place, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["journal"]
    assert (entry["step"]["tool"], entry["outcome"]) == ("redis_evict_to", None)


def test_delete_takes_what_is_older_and_never_what_is_open(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", place, "delete", "--older-than", "30d"]) == 0
    assert "1 fix(es) deleted" in capsys.readouterr().out
    assert main(["--url", place, "--json", "delete", "--ids", "open", "young"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": 1}
    assert main(["--url", place, "list", "--json"]) == 0
    assert [record["id"] for record in json.loads(capsys.readouterr().out)] == ["open"]


def test_size_tells_rows_and_kibibytes(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", place, "--json", "size"]) == 0
    told = {one["table"]: one for one in json.loads(capsys.readouterr().out)}
    assert (told["evenkeel_fixes"]["rows"], told["evenkeel_steps"]["rows"]) == (3, 1)
    assert told["evenkeel_fixes"]["kibibytes"] > 1
    assert main(["--url", place, "size"]) == 0
    assert "evenkeel_fixes" in capsys.readouterr().out


def test_a_question_never_creates_a_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", f"sqlite:///{tmp_path}/none.db", "list"]) == 2
    assert "no records at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nothing"], "no fix 'nothing'"),
        (["list", "--verdict", "Great"], "invalid choice"),
        (["list", "--verdict", "Great"], "Completed"),
        (["list", "--limit", "-1"], "a number from 1"),
        (["delete"], "one of the arguments --older-than --ids is required"),
        (["delete", "--older-than", "30 days"], "such as 30d"),
        (["delete", "--older-than", "30d", "--ids", "old"], "not allowed with"),
    ],
)
def test_what_cannot_be_done_is_said(place: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: int | str | None = main(["--url", place, *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
