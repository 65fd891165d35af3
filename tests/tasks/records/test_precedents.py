"""Which past fixes an incident is told of, on each database."""

from collections.abc import Callable
from datetime import timedelta

from blocks.schema import Kind
from tasks.core.models import Attempt, Decision, FixRecord, Health, Incident, Outcome, OutcomeStatus, Plan, Step, Verdict
from tasks.core.precedents import told
from tasks.records.repository import Records
from tests.tasks.records.conftest import T0

MakeRecord = Callable[..., FixRecord]
HOUR = timedelta(hours=1)


async def keep(
    records: Records,
    made: FixRecord,
    *symptoms: str,
    verdict: Verdict = Verdict.COMPLETED,
    message: str = "healed",
    kind: Kind = Kind.REDIS,
) -> None:
    """A closed fix that took a minute, healthy afterwards where it says so."""
    step = Step(tool="redis_set_maxmemory", target=made.incident.resource, args={"mebibytes": 96}, why="it is full")
    outcome = Outcome(step=step, status=OutcomeStatus.DONE, started_at=made.opened_at)
    plan = Plan(planner="runbook", decision=Decision.ACT, diagnosis="full", steps=(step,))
    fix = made.model_copy(
        update={
            "incident": made.incident.model_copy(update={"symptoms": symptoms or ("memory_high",), "kind": kind}),
            "attempts": (Attempt(plan=plan, outcomes=(outcome,)),),
            "after": made.before.model_copy(update={"health": Health.HEALTHY}) if verdict is Verdict.COMPLETED else None,
        }
    )
    assert await records.open_fix(fix, "me", fix.opened_at)
    assert await records.close_fix(fix, "me", verdict, message, fix.opened_at + timedelta(minutes=1))


async def test_the_most_alike_come_first_with_what_became_of_them(records: Records, make_record: MakeRecord) -> None:
    def past(name: str, hours: float, resource: str = "shop-cache", inventory: str = "lab") -> FixRecord:
        return make_record(name, resource=resource, inventory=inventory, opened_at=T0 - hours * HOUR)

    await keep(records, past("same, relapsed", 60))
    await keep(records, past("same, escalated", 50), verdict=Verdict.ESCALATED, message="a person is needed")
    await keep(records, past("same, lasted", 5), "memory_high", "write_refused")
    await keep(records, past("a neighbour's", 3, "other-cache"))
    await keep(records, past("a neighbour's other trouble", 2, "other-cache"), "clients_high")
    await keep(records, past("other trouble", 90), "slow", verdict=Verdict.NO_ACTION_NEEDED)
    await keep(records, past("of another kind", 1, "shop-db"), kind=Kind.POSTGRES)
    await keep(records, past("of another inventory", 1, inventory="elsewhere"))
    incident: Incident = make_record("now", opened_at=T0).incident
    own = make_record("now", opened_at=T0)
    assert await records.open_fix(own, "me", T0)

    found = await records.precedents(incident, 10)
    assert [one.fix.id for one in found] == ["same, escalated", "same, relapsed", "a neighbour's", "same, lasted", "other trouble"]
    assert [one.relapsed_after_seconds for one in found] == [None, 10 * 3600 - 60, None, 5 * 3600 - 60, None]
    assert [one.is_validated for one in found] == [False, True, True, True, False]
    lines = [told(one) for one in found]
    assert "this resource, same symptoms, not measured healthy: memory at 96.5 %" in lines[0]
    assert "this resource, same symptoms, came back after 10 h: " in lines[1]
    assert "another redis, other-cache, same symptoms, measured healthy, no relapse seen: " in lines[2]
    assert "this resource, also memory_high, came back after 5 h: " in lines[3]
    assert lines[3].endswith("-> redis_set_maxmemory: Completed, healed")
    assert "this resource, other symptoms, nothing was done: " in lines[4]
    assert [one.fix.id for one in await records.precedents(incident, 2)] == ["same, escalated", "same, relapsed"]


async def test_where_nothing_is_alike_nothing_is_told(records: Records, make_record: MakeRecord) -> None:
    incident = make_record("now", opened_at=T0).incident
    assert await records.precedents(incident, 5) == []
    await keep(records, make_record("other", resource="other-cache", opened_at=T0 - HOUR), "slow")
    assert await records.precedents(incident, 5) == []
    assert [one.fix.id for one in await records.precedents(incident.model_copy(update={"symptoms": ("slow",)}), 5)] == ["other"]
