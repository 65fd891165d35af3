"""What a remediation has left whose process is gone: told from its journal, and taken back before anything else is planned. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from tasks.core.models import Attempt, Decision, FixRecord, Health, Observation, Outcome, OutcomeStatus, Plan, Step, Verdict

TAKEOVER = "takeover"
"""The planner of an attempt that nobody planned: it takes back what an earlier remediation left."""
LOST = "its process vanished meanwhile: it may have acted or not"
NOTHING_SENT = {OutcomeStatus.UNREACHABLE, OutcomeStatus.DENIED}
UndoOf = Callable[[Outcome], Step | None]
Begun = tuple[Step, datetime, Outcome | None]
"""A step of a journal, when it was begun, and what came of it; None: it never ended."""


def outcomes_of(journal: Iterable[Begun], undo_of: UndoOf) -> list[Outcome]:
    """A journal as outcomes. A step that never ended is one whose outcome is not known."""
    found: list[Outcome] = []
    for step, begun_at, outcome in journal:
        undoes = any(_is_same_call(step, undo) for undo in outstanding(found, undo_of))
        lost = Outcome(step=step, status=OutcomeStatus.OUTCOME_UNKNOWN, message=LOST, started_at=begun_at, undoes=undoes)
        found.append(outcome or lost)
    return found


def outstanding(outcomes: Iterable[Outcome], undo_of: UndoOf) -> list[Step]:
    """The steps that take back what is still changed, the last change first.

    What was being taken back when the process vanished counts as taken back: nothing is sent twice.
    """
    made: list[Step] = []
    for outcome in outcomes:
        if not outcome.undoes:
            undo = undo_of(outcome)
            made += [] if undo is None else [undo]
        elif outcome.status not in NOTHING_SENT:
            last = next((place for place in reversed(range(len(made))) if _is_same_call(made[place], outcome.step)), None)
            if last is not None:
                del made[last]
    return made[::-1]


def with_journal(record: FixRecord, outcomes: Sequence[Outcome]) -> FixRecord:
    """The record with what its last attempt had done: that is noted only when the attempt is over."""
    missing = outcomes[sum(len(attempt.outcomes) for attempt in record.attempts) :]
    if not missing or not record.attempts:
        return record
    *before, last = record.attempts
    if last.plan.planner == TAKEOVER:
        missing = [outcome.model_copy(update={"undoes": True}) for outcome in missing]
    return record.model_copy(update={"attempts": (*before, last.model_copy(update={"outcomes": (*last.outcomes, *missing)}))})


def during(record: FixRecord) -> str:
    """In which stage a remediation was interrupted, as its record tells with the journal in it."""
    if not record.attempts:
        return "before it had a plan"
    attempt = record.attempts[-1]
    made, undone = ([one for one in attempt.outcomes if one.undoes is undoes] for undoes in (False, True))
    lost = next((one for one in attempt.outcomes if one.message == LOST), None)
    if lost is not None:
        return f"while {lost.step.tool} took a change back" if lost.undoes else f"during {lost.step.tool}"
    if attempt.after is not None:
        return "when all was done, while that was recorded"
    if undone:
        return "while changes were taken back"
    if not made:
        return "before its first step"
    return "between two steps" if len(made) < len(attempt.plan.steps) and made[-1].change is not None else "while it was validated"


def left_behind(earlier: Iterable[FixRecord], undo_of: UndoOf) -> list[Step]:
    """The steps that take back what the last fixes of a resource have left, the last change first.

    `earlier`: its other fixes, newest first. Only what was abandoned counts, and only where the resource was not healthy by then: what
    healed it stays.
    """
    chain: list[FixRecord] = []
    for record in earlier:
        if record.verdict is not Verdict.ABANDONED or (record.after is not None and record.after.health is Health.HEALTHY):
            break
        chain.append(record)
    attempts = [attempt for record in reversed(chain) for attempt in record.attempts if not attempt.kept]
    return outstanding([outcome for attempt in attempts for outcome in attempt.outcomes], undo_of)


def attempt_to_take_back(steps: Sequence[Step], observed: Observation) -> Attempt:
    """An attempt that takes back what an earlier remediation left, not carried out yet."""
    plan = Plan(
        planner=TAKEOVER,
        decision=Decision.ACT,
        diagnosis="an earlier remediation was interrupted and has left changes that did not help",
        expected="every value is what it was before that remediation",
        steps=tuple(steps),
    )
    return Attempt(plan=plan, observed=observed, decisions=tuple("allow: takes back what was done without having helped" for _ in steps))


def planned(attempts: Iterable[Attempt]) -> list[Attempt]:
    """The attempts that a planner made: what the retries are counted by."""
    return [attempt for attempt in attempts if attempt.plan.planner != TAKEOVER]


def _is_same_call(one: Step, other: Step) -> bool:
    return (one.tool, one.target, one.args) == (other.tool, other.target, other.args)
