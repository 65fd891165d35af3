"""What a remediation has left whose process is gone."""

from datetime import timedelta

import pytest

from tasks.core.abandoned import LOST, TAKEOVER, attempt_to_take_back, during, left_behind, outcomes_of, planned, with_journal
from tasks.core.models import Attempt, Change, Decision, FixRecord, Health, Observation, Outcome, OutcomeStatus, Plan, Step, Verdict
from tasks.core.silence import Silences
from tests.tasks.core.conftest import Observe
from tests.tasks.unwell import START, incident_of


def call(value: int, why: str = "helps") -> Step:
    return Step(tool="set", target="cache", args={"to": value}, why=why)


def done(value: int, before: int, *, undoes: bool = False, status: OutcomeStatus = OutcomeStatus.DONE) -> Outcome:
    change = Change(before={"it": before}, after={"it": value}, undo={"to": before}) if status is OutcomeStatus.DONE else None
    return Outcome(step=call(value), status=status, change=change, started_at=START, undoes=undoes)


def undo_of(outcome: Outcome) -> Step | None:
    return None if outcome.change is None else call(int(str(outcome.change.before["it"])), "takes it back")


def attempt(*outcomes: Outcome, steps: int = 2, after: Observation | None = None, planner: str = "model") -> Attempt:
    plan = Plan(planner=planner, decision=Decision.ACT, diagnosis="full", steps=tuple(call(one) for one in range(steps)))
    return Attempt(plan=plan, outcomes=outcomes, after=after)


@pytest.fixture
def unwell(observe: Observe) -> Observation:
    return observe("cache", Health.DEGRADED)


def record(
    unwell: Observation, *attempts: Attempt, verdict: Verdict | None = Verdict.ABANDONED, after: Observation | None = None
) -> FixRecord:
    incident = incident_of(unwell)
    return FixRecord(id="1", incident=incident, before=unwell, opened_at=START, attempts=attempts, verdict=verdict, after=after)


def test_a_journal_tells_what_an_attempt_did_and_what_nobody_knows(unwell: Observation) -> None:
    earlier, last = attempt(done(1, 0), done(0, 1, undoes=True), after=unwell), attempt()
    begun = [(call(one), START, outcome) for one, outcome in ((1, done(1, 0)), (0, done(0, 1, undoes=True)), (2, done(2, 0)), (0, None))]
    told = with_journal(record(unwell, earlier, last), outcomes_of(begun, undo_of)).attempts[-1].outcomes
    assert [(one.step.args, one.status, one.undoes, one.message) for one in told] == [
        ({"to": 2}, OutcomeStatus.DONE, False, ""),
        ({"to": 0}, OutcomeStatus.OUTCOME_UNKNOWN, True, LOST),  # it was being taken back
    ]
    untold = record(unwell, attempt(done(1, 0)))
    assert with_journal(untold, outcomes_of(begun[:1], undo_of)) == untold
    assert with_journal(record(unwell), outcomes_of(begun, undo_of)) == record(unwell)


def test_each_stage_is_told_by_what_is_on_record(unwell: Observation) -> None:
    lost = done(2, 1).model_copy(update={"message": LOST, "status": OutcomeStatus.OUTCOME_UNKNOWN})
    stages: dict[str, tuple[Attempt, ...]] = {
        "before it had a plan": (),
        "before its first step": (attempt(),),
        "during set": (attempt(done(1, 0), lost),),
        "between two steps": (attempt(done(1, 0)),),
        "while it was validated": (attempt(done(1, 0), done(2, 1)),),
        "while set took a change back": (attempt(done(1, 0), done(2, 1), lost.model_copy(update={"undoes": True})),),
        "while changes were taken back": (attempt(done(1, 0), done(2, 1), done(1, 2, undoes=True)),),
        "when all was done, while that was recorded": (attempt(done(1, 0), after=unwell),),
    }
    assert {during(record(unwell, *attempts)): attempts for attempts in stages.values()} == stages
    refused = attempt(done(1, 0, status=OutcomeStatus.FAILED))
    assert during(record(unwell, refused)) == "while it was validated"


def test_what_is_left_is_taken_back_in_reverse_over_all_that_vanished_in_a_row(unwell: Observation) -> None:
    first = record(unwell, attempt(done(1, 0), done(2, 1)))
    second = record(unwell, attempt(done(1, 2, undoes=True), planner=TAKEOVER), attempt(done(5, 1)))
    older = record(unwell, attempt(done(9, 8)), verdict=Verdict.ESCALATED)
    assert [one.args for one in left_behind([second, first, older], undo_of)] == [{"to": 1}, {"to": 0}]
    assert left_behind([older, second], undo_of) == []


def test_what_was_being_taken_back_is_not_taken_back_twice_and_what_was_not_sent_is(unwell: Observation) -> None:
    first = record(unwell, attempt(done(1, 0)))
    journal = [(call(0), START, None)]
    second = with_journal(record(unwell, attempt(planner=TAKEOVER)), outcomes_of(journal, undo_of))
    assert left_behind([second, first], undo_of) == []
    stopped = record(unwell, attempt(done(0, 1, undoes=True, status=OutcomeStatus.DENIED), planner=TAKEOVER))
    assert [one.args for one in left_behind([stopped, first], undo_of)] == [{"to": 0}]


def test_what_healed_it_or_was_kept_stays(unwell: Observation, observe: Observe) -> None:
    assert left_behind([record(unwell, attempt(done(1, 0)), after=observe("cache", Health.HEALTHY))], undo_of) == []
    assert left_behind([record(unwell, attempt(done(1, 0)).model_copy(update={"kept": True}))], undo_of) == []
    assert left_behind([], undo_of) == []


def test_taking_back_is_no_attempt_of_a_planner(unwell: Observation) -> None:
    taking = attempt_to_take_back([call(0)], unwell)
    assert planned([taking, attempt()]) == [attempt()]
    assert len(taking.decisions) == len(taking.plan.steps) == 1


def test_a_heartbeat_is_heard_by_its_change_alone() -> None:
    silences, hour = Silences(), timedelta(hours=1)
    assert silences.listen({"a": START, "b": START + hour}, 100.0) == {"a": 0, "b": 0}
    assert silences.listen({"a": START, "b": START + 2 * hour}, 105.0) == {"a": 5, "b": 0}
    assert silences.listen({"a": START - hour}, 106.0) == {"a": 0}, "a clock that is put back is a sign of life as well"
    assert silences.listen({"a": START - hour, "b": START + 2 * hour}, 110.0) == {"a": 4, "b": 0}, "forgotten, and heard anew"
