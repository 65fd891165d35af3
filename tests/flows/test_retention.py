"""Retention: what is old goes by itself, whole, from Prefect's database and from the records; what is young stays."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from compose.control_plane import ControlPlane
from flows.delete_history import delete_history
from tasks.clients.polling import poll
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.probing import probe_resource
from tests.stored_runs import publish, run, stored, written
from tests.tasks.unwell import incident_of

pytestmark = pytest.mark.timeout(240)


async def cancelled() -> UUID:
    """A run that never began, as those are that the limit of a deployment turns away."""
    async with get_client() as client:
        made = await client.create_flow_run(publish, parameters={"key": "retention-none", "version": 0})
        await client.set_flow_run_state(made.id, Cancelled())
    return made.id


async def test_old_runs_go_with_all_that_belongs_to_them(prefect_server: ControlPlane) -> None:
    with stored(prefect_server) as database:
        old = [await run("retention-old", version) for version in (1, 2)]
        old.append(await cancelled())
        young = [await run("retention-young", 3)]

        # Task runs are written by a service, a moment later.
        assert await poll(partial(written, database, old, 8), seconds=60, every_seconds=0.2)
        assert await poll(partial(written, database, young, 4), seconds=60, every_seconds=0.2)
        old, young = database.with_subflows(old), database.with_subflows(young)
        assert (len(old), len(young)) == (5, 2)
        before = database.of_runs(old)
        kept = database.of_runs(young)
        assert min(before.values()) > 0
        events = database.make_old(old)
        assert events > 0

        async def all_gone() -> bool | None:
            aged = database.count("SELECT count(*) FROM events WHERE occurred < now() - interval '8 days'")
            resources = database.count("SELECT count(*) FROM event_resources WHERE occurred < now() - interval '8 days'")
            collections = database.count("SELECT count(*) FROM artifact_collection WHERE key IN ('retention-old', 'retention-old-below')")
            return not any((*database.of_runs(old).values(), aged, resources, collections)) or None

        gone = await poll(all_gone, seconds=60, every_seconds=0.2)
        after = database.of_runs(old)
        print(f"\nrows of {len(old)} runs older than the retention, before and after: {before}, {after}; events: {events}")
        assert gone, after
        left = database.of_runs(young)
        assert all(left[table] >= count > 0 for table, count in kept.items()), (left, kept)
        (latest,) = database.rows(
            "SELECT a.data FROM artifact_collection AS c JOIN artifact AS a ON a.id = c.latest_id WHERE c.key = 'retention-status'"
        )
        assert "version 3" in latest[0]


async def test_the_nightly_flow_deletes_old_fixes_and_says_what_the_server_keeps(opened: Live) -> None:
    records, now = opened.records, datetime.now(UTC)
    observation = await probe_resource(opened, opened.inventory.resource("shop-cache"))
    named = {f"retention-{days}": now - timedelta(days=days) for days in (300, 200, 2)}
    try:
        for name, when in named.items():
            incident = incident_of(observation, inventory="lab").model_copy(update={"id": name, "resource": "retired", "opened_at": when})
            record = FixRecord(id=name, incident=incident, before=observation, opened_at=when)
            assert await records.open_fix(record, "test", when)
            assert await records.close_fix(record, "test", Verdict.COMPLETED, "long ago", when)
        state: State[Any] = await delete_history(return_state=True)
        assert state.is_completed(), state.message
        assert str(state.message).startswith("2 fix(es) older than 90 days deleted")
        assert "Prefect's server keeps runs for 14 days" in str(state.message)
        assert [one.id for one in await records.history(resource="retired", inventory="lab")] == ["retention-2"]
    finally:
        await records.delete(ids=list(named))
