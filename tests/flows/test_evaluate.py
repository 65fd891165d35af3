"""An evaluation as a person starts it, what only restarts, and where both end."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.client.schemas.objects import State

from blocks.schema import Autonomy
from compose.description import LabDescription
from compose.lab import states
from flows.evaluate import evaluate, require_there
from flows.healing import Remediation
from flows.reset import NotALabError
from flows.restarting import restart_only
from tasks.charge import RESTART, in_charge, planner_in_charge
from tasks.connecting import Live
from tasks.core.evaluation import Case, Trial
from tasks.core.evaluation_summary import Settings
from tasks.core.models import FixRecord, Verdict
from tasks.core.scoring import ScenarioResult
from tasks.evaluating import FINISHED, LabGoneError, Results, conditions_of
from tasks.probing import probe_resource
from tests.tasks.unwell import incident_of

pytestmark = pytest.mark.timeout(120)
FAULT = "redis_down_behind_the_shop"


def tried(planner: str) -> Trial:
    """A trial that an evaluation made before it was killed."""
    settings = Settings(scenarios=(FAULT,), planners=("runbook",), repeats=1, timeout_seconds=40, sustain_seconds=0, swinging=False)
    result = ScenarioResult(
        scenario=FAULT,
        planner=planner,
        expected="healed",
        outcome="healed",
        as_expected=True,
        detected_seconds=1,
        planned_seconds=2,
        healthy_seconds=3,
        requests=10,
        requests_failed=1,
        data_unharmed=True,
    )
    conditions = conditions_of(settings, "lab")
    return Trial(
        case=Case(scenario=FAULT, planner=planner, repeat=1), result=result, ended_at=datetime.now(UTC), seconds=9, conditions=conditions
    )


@pytest.mark.slow
async def test_it_goes_on_where_it_was_and_the_restart_is_judged_like_the_rest(opened: Live, lab: LabDescription, tmp_path: Path) -> None:
    before, since = tried("runbook"), datetime.now(UTC)
    Results(tmp_path).keep(before)
    state: State[Any] = await evaluate(
        [FAULT],
        repeats=1,
        directory=str(tmp_path),
        timeout_seconds=40,
        sustain_seconds=0,
        swinging_neighbours=False,
        command="make evaluate",
        return_state=True,
    )
    assert state.is_completed(), state.message
    first, second = (Trial.model_validate_json(line) for line in (tmp_path / FINISHED).read_text(encoding="utf-8").splitlines())
    assert first == before
    assert second.succeeded, second.result.problems
    assert (second.case.planner, second.result.planner, second.result.tools) == (RESTART, RESTART, ("redis_restart",))
    (record,) = await opened.records.history(inventory="lab", since=since, limit=5)
    assert record.attempts[0].decisions == (), "no policy was asked"
    assert await planner_in_charge(opened) is None, "the lab's own planner plans again"
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["missing"], len(report["trials"])) == (0, 2)
    for key in ("evaluation-lab", "evaluation-trials-lab", "evaluation-progress-lab"):
        assert await Artifact.aget(key) is not None, key


async def test_outside_of_a_lab_nobody_else_is_in_charge_and_nothing_is_restarted_without_policy(opened: Live, lab: LabDescription) -> None:
    cache = opened.inventory.resource("shop-cache")
    incident = incident_of(await probe_resource(opened, cache), inventory="lab")
    record = FixRecord(id=incident.id, incident=incident, before=incident.observation, opened_at=incident.opened_at)
    starts = [one["starts"] for one in states(lab)]
    async with in_charge(opened, "restart", 60):
        assert await planner_in_charge(opened) == RESTART
        elsewhere = copy.copy(opened)
        elsewhere.inventory = opened.inventory.model_copy(update={"lab": False})
        assert await planner_in_charge(elsewhere) is None
        with pytest.raises(NotALabError):
            await restart_only(Remediation(elsewhere, record, "nobody"))
        with pytest.raises(ValueError, match="is no lab"):
            async with in_charge(elsewhere, "restart", 60):
                pass
        with pytest.raises(ValueError, match="section `gemini:`"):
            async with in_charge(opened, "gemini", 60):
                pass
    verdict, message = await restart_only(Remediation(opened, record, "nobody", autonomy=Autonomy.PROPOSE))
    assert (verdict, message) == (Verdict.ESCALATED, "a person is needed: nothing is restarted: autonomy is propose")
    assert [one["starts"] for one in states(lab)] == starts


async def test_a_lab_that_is_gone_counts_for_nothing(opened: Live) -> None:
    await require_there(opened)
    gone = copy.copy(opened)
    gone.inventory = opened.inventory.model_copy(
        update={
            "resources": tuple(
                one.model_copy(
                    update={"name": f"{one.name}-gone", "runtime": one.runtime.model_copy(update={"control": "/nowhere/control"})}
                )
                for one in opened.inventory.resources
                if one.runtime is not None and not one.logins
            )
        }
    )
    with pytest.raises(LabGoneError, match="start the lab"):
        await require_there(gone)
