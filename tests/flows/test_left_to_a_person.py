"""A resource that was left to a person is tried again once the inventory or its rules were changed."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.monitor import _escalations
from tasks.catalog import load_catalog
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.records.repository import Records
from tests.incidents import context_of, lab_inventory


async def test_who_has_changed_the_rules_has_answered(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    context = context_of("cache: memory_high")
    incident, name = context.incident, context.resource.name
    fix = FixRecord(id=incident.id, incident=incident, before=context.observation, opened_at=now)
    async with AsyncExitStack() as stack, await Records.open(f"sqlite:///{tmp_path}/records.db") as records:
        opened = Live(lab_inventory(), records, load_catalog(), {}, gemini=None, _stack=stack)
        assert await records.open_fix(fix, "a run", now)
        assert await records.close_fix(fix, "a run", Verdict.ESCALATED, "autonomy is propose", now)
        assert (await _escalations(opened)).keys() == {name}
        opened.configured_at = now - timedelta(seconds=1)
        assert (await _escalations(opened)).keys() == {name}
        opened.configured_at = now + timedelta(seconds=1)
        assert await _escalations(opened) == {}
