"""Who plans for a lab for a time."""

from datetime import UTC, datetime, timedelta

from tasks.records.repository import Records

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = T0 + timedelta(minutes=5)


async def test_a_charge_is_seen_by_all_and_ends_by_itself_or_when_told(url: str, records: Records) -> None:
    assert await records.planner_in_charge("lab", T0) is None
    async with await Records.open(url) as other:
        await other.put_in_charge("lab", "restart", LATER)
        await other.put_in_charge("lab", "runbook", LATER)
    assert await records.planner_in_charge("lab", T0) == "runbook"
    assert await records.planner_in_charge("elsewhere", T0) is None
    assert await records.planner_in_charge("lab", LATER) is None
    await records.end_charge("lab")
    assert await records.planner_in_charge("lab", T0) is None
