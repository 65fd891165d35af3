"""The trials of an evaluation, kept case by case: whoever is killed goes on where it was."""

import fcntl
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from pydantic import ValidationError

from tasks.core.errors import EvenkeelError
from tasks.core.evaluation import Case, Trial
from tasks.core.evaluation_summary import Settings
from tasks.core.scoring import ScenarioResult

UNDER_WAY = "under-way.jsonl"
FINISHED = "trials.jsonl"

DEFAULT_SCENARIOS = (
    "redis_memory_pressure",
    "postgres_connection_overload",
    "nginx_connection_overload",
    "redis_blocking_script",
    "postgres_table_locked",
    "nginx_wrong_upstream",
    "nginx_expired_certificate",
    "nginx_invalid_configuration",
    "redis_down_behind_the_shop",
    "postgres_library_mistyped",
    "redis_password_changed",
    "postgres_slot_left",
    "redis_script_that_wrote",
    "shop_stopped_again",
    "postgres_monitor_locked_out",
    "nginx_traffic_swings",
    "redis_pressure_with_praise_in_history",
    "nginx_overload_with_instruction_in_log",
)
"""A part of the catalogue with every service of a lab of processes, every way to end, and text that means harm."""


class LabGoneError(EvenkeelError):
    """What runs the lab does not answer, so nothing that was tried in it counts."""


class Results:
    """One line of JSON for each trial, in a directory that several processes may share.

    An evaluation that is not finished stands in `under-way.jsonl`; finished, the file is called `trials.jsonl`, and the next begins anew.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / UNDER_WAY

    def trials(self, conditions: str) -> dict[str, Trial]:
        """Key of the case -> its first trial under these conditions. A line that a killed process has not written to its end is none."""
        if not self._path.exists():
            return {}
        found: dict[str, Trial] = {}
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                trial = Trial.model_validate_json(line)
            except ValidationError:
                continue
            if trial.conditions == conditions:
                found.setdefault(trial.case.key, trial)
        return found

    def keep(self, trial: Trial) -> None:
        """Add a trial, and see it on the disk."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            is_torn = False
            if size:
                file.seek(-1, os.SEEK_END)
                is_torn = file.read(1) != b"\n"
            file.write((b"\n" if is_torn else b"") + trial.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Let the next evaluation begin anew."""
        if self._path.exists():
            self._path.replace(self.directory / FINISHED)


def conditions_of(settings: Settings, inventory: str) -> str:
    """What has to be the same for trials to be comparable."""
    neighbours = "neighbours swing in every second repeat" if settings.swinging else "neighbours are well"
    times = f"{settings.timeout_seconds:g} s to be healed, well for {settings.sustain_seconds:g} s afterwards"
    return f"inventory {inventory}, {times}, {neighbours}"


async def run_cases(
    cases: Sequence[Case],
    results: Results,
    conditions: str,
    try_one: Callable[[Case], Awaitable[ScenarioResult]],
    told: Callable[[dict[str, Trial]], Awaitable[None]],
) -> None:
    """Try every case that has no trial yet, and keep each; `told` hears of all trials after each. An error of `try_one` ends it."""
    for case in cases:
        done = results.trials(conditions)
        if case.key not in done:
            began = monotonic()
            result = await try_one(case)
            trial = Trial(
                case=case, result=result, ended_at=datetime.now(UTC), seconds=round(monotonic() - began, 3), conditions=conditions
            )
            results.keep(trial)
            done[case.key] = trial
        await told(done)
