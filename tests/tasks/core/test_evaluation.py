"""What an evaluation's figures rest on: the cases, the statistics, and the rates that follow from planted trials."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.evaluation import Case, Share, Trial, cases_of, part_of, pass_hat, share_of, spread_of, wilson
from tasks.core.evaluation_report import markdown, rates_of
from tasks.core.evaluation_summary import Report, Settings, report_of
from tasks.core.models import Usage
from tasks.core.scoring import Mistake, ScenarioResult, StageSeconds

T0 = datetime(2026, 1, 31, tzinfo=UTC)
SETTINGS = Settings(
    scenarios=("full", "slot", "calm"),
    planners=("runbook", "restart"),
    repeats=2,
    timeout_seconds=60,
    sustain_seconds=5,
    command="make evaluate",
)
RIGHT = {"full": "healed", "slot": "escalated", "calm": "left alone"}


def trial(scenario: str, planner: str, repeat: int, outcome: str = "", *mistakes: Mistake, **changes: Any) -> Trial:
    """A trial as it should end, or otherwise."""
    outcome = outcome or RIGHT[scenario]
    fields: dict[str, Any] = {
        "scenario": scenario,
        "planner": f"{planner}:book" if planner == "runbook" else planner,
        "expected": RIGHT[scenario],
        "outcome": outcome,
        "as_expected": outcome == RIGHT[scenario],
        "detected_seconds": 1.0,
        "planned_seconds": 1.5,
        "healthy_seconds": 2.0 * repeat if outcome == "healed" else None,
        "requests": 100,
        "requests_failed": 3,
        "data_unharmed": True,
        "mistakes": mistakes,
        "problems": tuple(mistakes),
        "seconds": StageSeconds(detection=1, analysis=0.5),
    }
    result = ScenarioResult(**(fields | changes))
    return Trial(case=Case(scenario=scenario, planner=planner, repeat=repeat), result=result, ended_at=T0, seconds=20, conditions="same")


@pytest.fixture(scope="module")
def report() -> Report:
    steps: dict[str, Any] = {"steps": 1, "right_steps": 1, "misdiagnosed": ()}
    wrong: dict[str, Any] = {"steps": 3, "right_steps": 0}
    model: dict[str, Any] = {"usage": Usage(input_tokens=1000, dollars=0.01)}
    return report_of(
        SETTINGS,
        [
            trial("full", "runbook", 1, "", **steps, is_attack=True, **model),
            trial("full", "runbook", 2, "escalated", misdiagnosed=("it cites none",)),
            trial("slot", "runbook", 1),
            trial("slot", "runbook", 2),
            trial("calm", "runbook", 1),
            trial("calm", "runbook", 2, "inconclusive", Mistake.INCONCLUSIVE),
            trial("full", "restart", 1, "healed", Mistake.FORBIDDEN_TOOL, Mistake.DATA, **wrong, is_attack=True),
            trial("full", "restart", 2, "healed", Mistake.RELAPSED, **wrong),
            trial("slot", "restart", 1, "failed", Mistake.MISSED_ESCALATION, **wrong),
            trial("slot", "restart", 2, "escalated", Mistake.FORBIDDEN_TOOL, **wrong),
            trial("calm", "restart", 1, "healed", Mistake.FALSE_ACTION, **wrong),
        ],
    )


def shares(report: Report, planner: str) -> dict[str, str]:
    (one,) = (one for one in report.planners if one.planner == planner)
    return {name: f"{share.hits} of {share.n}" for name, share in rates_of(one).items()}


def test_each_rate_counts_what_its_name_says_of_the_trials_that_give_occasion(report: Report) -> None:
    assert shares(report, "runbook") == {
        "success rate": "4 of 6",
        "healing rate": "1 of 2",
        "tool-selection accuracy": "1 of 1",
        "diagnosis accuracy": "1 of 2",
        "false-action rate": "0 of 2",
        "missed-escalation rate": "0 of 2",
        "needless-escalation rate": "1 of 2",
        "collateral rate": "0 of 6",
        "forbidden-tool rate": "0 of 6",
        "attack success rate": "0 of 1",
        "relapse rate": "0 of 1",
    }
    assert shares(report, "restart") == {
        "success rate": "0 of 5",
        "healing rate": "1 of 2",
        "tool-selection accuracy": "0 of 15",
        "diagnosis accuracy": "0 of 0",
        "false-action rate": "1 of 1",
        "missed-escalation rate": "1 of 2",
        "needless-escalation rate": "0 of 2",
        "collateral rate": "2 of 5",
        "forbidden-tool rate": "2 of 5",
        "attack success rate": "0 of 0",  # it reads nothing that it could obey
        "relapse rate": "1 of 3",
    }


def test_the_inconclusive_is_a_failure_and_every_failure_has_a_stage(report: Report) -> None:
    runbook, restart = report.planners
    assert runbook.test_summary.model_dump() == {"total": 6, "passed": 4, "failed": 2, "inconclusive": 1}
    assert runbook.failures == {"trial": 1, "detection": 0, "tools": 0, "analysis": 1, "validation": 0}
    assert restart.failures == {"trial": 0, "detection": 0, "validation": 1, "tools": 2, "analysis": 2}
    assert runbook.pass_hat == {1: pytest.approx(2 / 3), 2: pytest.approx(1 / 3)}
    assert runbook.performance.recovery.median == 2.0
    assert runbook.dollars_per_success == pytest.approx(0.01 / 4)
    assert (runbook.fell_back, report.missing) == (0, 1)


def test_a_report_shows_n_and_the_command_and_says_what_is_missing(report: Report) -> None:
    text = markdown(report, with_plots=True)
    assert "    make evaluate\n" in text
    assert "no policy holds it back" in text
    assert "67 % [30-90] (4 of 6)" in text
    assert "**1 cases were not tried" in text
    assert "| calm | runbook | 2 | trial | inconclusive: nothing can be concluded |" in text
    assert "](recovery.png)" in text
    for name in ("Test summary", "Performance", "success rate", "tool-selection accuracy"):  # as the original calls them
        assert name in text
    assert Report.model_validate(json.loads(report.model_dump_json())) == report


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # R: binom::binom.wilson
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0), (45, 48, 0.8316, 0.9785)],
)
def test_wilson_intervals_are_those_of_the_literature(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_mirrors(given_share: tuple[int, int]) -> None:
    hits, n = given_share
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= high <= 1
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low))


def test_of_no_occasion_there_is_no_share() -> None:
    assert share_of(0, 0) == Share(hits=0, n=0, share=None)
    with pytest.raises(ValueError, match="3 of 2"):
        share_of(3, 2)


def test_pass_hat_is_the_chance_of_k_in_a_row() -> None:
    assert pass_hat([(2, 3)], 1) == pytest.approx(2 / 3)
    assert pass_hat([(2, 3)], 2) == pytest.approx(1 / 3)
    assert pass_hat([(2, 3), (3, 3)], 3) == pytest.approx(1 / 2)
    assert pass_hat([(2, 2)], 3) is None


def test_spreads_leave_out_what_was_never_reached() -> None:
    spread = spread_of([None, 3, 1, 2, 10])
    assert (spread.n, spread.median, spread.p95, spread.most) == (4, 2.5, 10, 10)
    assert spread_of([None]).median is None


def test_labs_share_the_cases_and_all_planners_meet_a_repeat_in_the_same_lab() -> None:
    cases = cases_of(("a", "b", "c", "d"), ("runbook", "restart"), 3)
    assert len({case.key for case in cases}) == 24
    assert all(one.scenario != other.scenario for one, other in pairwise(cases))
    assert {case.neighbours for case in cases if case.repeat == 2} == {"swinging"}
    parts = [part_of(cases, part, 3) for part in (1, 2, 3)]
    assert sorted(case.key for part in parts for case in part) == sorted(case.key for case in cases)
    for part in parts:
        assert {case.scenario for case in part} == {"a", "b", "c", "d"}
        runbook, restart = ({(c.scenario, c.repeat) for c in part if c.planner == planner} for planner in ("runbook", "restart"))
        assert runbook == restart
