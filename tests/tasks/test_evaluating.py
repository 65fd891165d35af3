"""An evaluation's trials on disk: a real process is killed in the middle, and the numbers are those of one that was not."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.evaluation import Trial
from tasks.core.evaluation_summary import report_of
from tasks.evaluating import FINISHED, UNDER_WAY, Results
from tasks.reporting import write_report
from tests.tasks.evaluation_process import CASES, CONDITIONS, SETTINGS, evaluate

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 30.0
WHENEVER = datetime(2026, 1, 31, tzinfo=UTC)


def figures(trials: dict[str, Trial]) -> str:
    """All that a report says of the trials, whatever the clock."""
    untimed = [trials[case.key].model_copy(update={"seconds": 0, "ended_at": WHENEVER}) for case in CASES]
    return report_of(SETTINGS, untimed).model_dump_json()


def lines(directory: Path) -> list[str]:
    path = directory / UNDER_WAY
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def killed_after(directory: Path, count: int) -> None:
    """Start an evaluation as a process of its own, and kill it as soon as that many trials are kept and the next is under way."""
    process = subprocess.Popen([sys.executable, "-m", "tests.tasks.evaluation_process", str(directory)], cwd=ROOT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(lines(directory)) < count:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def test_killed_twice_it_goes_on_and_the_numbers_are_the_same(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    asyncio.run(evaluate(whole, seconds=0))
    killed_after(torn, 3)
    first = lines(torn)
    # As if the kill had come in the middle of a line.
    with (torn / UNDER_WAY).open("a", encoding="utf-8") as file:
        file.write(first[0][:200])
    killed_after(torn, len(first) + 4)
    assert 0 < len(Results(torn).trials(CONDITIONS)) < len(CASES)
    asyncio.run(evaluate(torn, seconds=0))
    kept = lines(torn)
    assert kept[: len(first)] == first, "what was tried before the kill stands as it was"
    keys = [json.loads(line)["case"] for line in kept if line.startswith("{") and line.endswith("}")]
    assert len(keys) == len({json.dumps(key) for key in keys}) == len(CASES), "every case once"
    assert figures(Results(torn).trials(CONDITIONS)) == figures(Results(whole).trials(CONDITIONS))


def test_other_conditions_do_not_mix_and_a_finished_evaluation_begins_anew(tmp_path: Path) -> None:
    asyncio.run(evaluate(tmp_path, seconds=0))
    results = Results(tmp_path)
    assert results.trials("under other conditions") == {}
    write_report(report_of(SETTINGS, list(results.trials(CONDITIONS).values())), tmp_path)
    results.finish()
    assert results.trials(CONDITIONS) == {}
    assert len((tmp_path / FINISHED).read_text(encoding="utf-8").splitlines()) == len(CASES)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["missing"] == 0
    plots = sorted(path.name for path in tmp_path.glob("*.png"))
    assert plots == ["cost.png", "failures.png", "pass_k.png", "recovery.png", "success.png"]
    for name in plots:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert f"]({name})" in (tmp_path / "report.md").read_text(encoding="utf-8")
