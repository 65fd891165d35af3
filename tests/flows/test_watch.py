"""The watcher on real servers: an alert heals what the scheduled monitor, which is held, would not; and a rise is met before it hurts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from pydantic import SecretStr

from blocks.alerts import load_alerts, save_alerts
from blocks.alerts_section import Alerts
from compose.description import LabDescription, free_ports
from flows.remediate import remediate
from flows.watch import watch
from tasks.connecting import Live
from tasks.core.detection import open_incident
from tasks.core.models import Finding, Forecast, Health, Verdict
from tasks.core.trends import still_predicted
from tasks.probing import probe_resource
from tests.flows.cache_fault import empty, fill, maxmemory_mib

pytestmark = pytest.mark.timeout(120)
TOKEN = "a-token-of-the-tests"


@dataclass
class Watched:
    """A watcher that runs, and how it is reached."""

    url: str
    run: asyncio.Task[State[Any]]

    async def post(self, *labels: dict[str, str]) -> httpx.Response:
        body = {"version": "4", "alerts": [{"status": "firing", "labels": found} for found in labels]}
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            return await http.post(self.url, json=body, headers={"authorization": f"Bearer {TOKEN}"})


@asynccontextmanager
async def watching(opened: Live, window_seconds: float) -> AsyncIterator[Watched]:
    """A watcher that receives alerts; it ends by itself."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    async with get_client() as client:
        assert await save_alerts(client, "lab", Alerts(listen=listen, token=SecretStr(TOKEN))) == (1, 0)
    run = asyncio.ensure_future(watch("lab", window_seconds, return_state=True))
    watched = Watched(f"http://{listen}/alerts", run)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert (await watched.post()).status_code == 200
                break
            except httpx.ConnectError:
                assert not run.done(), run.result()
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        yield watched
    finally:
        async with get_client() as client:
            await save_alerts(client, "lab", None)
        if not run.done():
            await opened.records.take_over_monitor("lab/events", "the tests", datetime.now(UTC))
        await run


async def looks_of(state: State[Any]) -> list[FlowRun]:
    async with get_client() as client:
        parent = FlowRunFilterParentFlowRunId(any_=[state.state_details.flow_run_id])
        return await client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))


@pytest.mark.slow
async def test_an_alert_heals_while_the_scheduled_monitor_is_held(opened: Live, lab: LabDescription) -> None:
    since = datetime.now(UTC)
    holder = await opened.records.current_monitor("lab")
    async with watching(opened, 300) as watched:
        assert await fill(lab, 96) >= 96
        try:
            posted_at = datetime.now(UTC)
            unknown = {"alertname": "DiskFull", "instance": "10.9.9.9:9100"}
            answer = await watched.post({"alertname": "CacheFull", "instance": f"{lab.cache.host}:{lab.cache.port}"}, unknown)
            assert answer.json() == {"looked_at": ["shop-cache"], "already": [], "dropped": [], "unknown": 1}
            assert (await watched.post({"evenkeel_resource": "shop-cache"})).json()["already"] == ["shop-cache"]
            await verdict(opened, since)
            assert await maxmemory_mib(lab) > 64
        finally:
            await empty(lab)
        record = (await opened.records.history(inventory="lab", since=since, limit=5))[0]
        print(f"posted -> detected {(record.opened_at - posted_at).total_seconds():.3f} s")
        await opened.records.take_over_monitor("lab/events", "the tests", datetime.now(UTC))
        state = await watched.run
    assert record.verdict is Verdict.COMPLETED
    assert "healed by redis_set_maxmemory" in record.message
    assert state.message == (
        "3 alert(s), 1 of them about no known resource; 1 look(s), 1 duplicate(s), 0 turned away as too many; the next run has taken over"
    )
    (look,) = await looks_of(state)
    assert look.name == "Look at shop-cache: alert CacheFull"
    assert {"evenkeel", "event"} <= set(look.tags)
    # Nothing of it took the scheduled monitor's place.
    assert await opened.records.current_monitor("lab") == holder


async def verdict(opened: Live, since: datetime) -> None:
    deadline = time.monotonic() + 60
    while not any(one.verdict for one in await opened.records.history(inventory="lab", since=since, limit=5)):
        assert time.monotonic() < deadline, "not healed in time"
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_a_rise_is_met_by_what_nobody_feels(opened: Live, lab: LabDescription) -> None:
    """What the monitor would have predicted: at 80 % and rising by a point each 20 s, so that 95 % is reached within the horizon."""
    assert await fill(lab, 80) >= 80
    try:
        resource = opened.inventory.resource("shop-cache")
        rising = Finding(
            symptom="memory_high", health=Health.DEGRADED, summary="", forecast=Forecast(metric="memory_percent", per_second=0.05)
        )
        observation = still_predicted(await probe_resource(opened, resource), [rising], resource)
        assert observation.predicted
        incident = open_incident("lab", observation, datetime.now(UTC))
        state: State[Any] = await remediate("shop-cache", incident=incident, return_state=True)
        assert state.name == Verdict.COMPLETED.value, state.message
        record = await opened.records.get(incident.id)
        assert record is not None
        assert [one.step.tool for one in record.attempts[0].outcomes] == ["redis_set_maxmemory"]
        assert await maxmemory_mib(lab) > 64
        # The raise was the one reversible remedy: nothing is left to do for a prediction, and nothing that is felt is done.
        assert await fill(lab, 80) >= 80
        full = resource.model_copy(update={"limits": resource.limits.model_copy(update={"memory_mib": None})})
        await without_room(opened, full, rising)
    finally:
        await empty(lab)


async def without_room(opened: Live, resource: Any, rising: Finding) -> None:
    before = opened.inventory
    opened.inventory = before.model_copy(
        update={"resources": tuple(resource if one.name == resource.name else one for one in before.resources)}
    )
    try:
        observation = still_predicted(await probe_resource(opened, resource), [rising], resource)
        incident = open_incident("lab", observation, datetime.now(UTC))
        state: State[Any] = await remediate(resource.name, incident=incident, return_state=True)
        assert state.name == Verdict.NO_ACTION_NEEDED.value, state.message
        assert "only predicted" in str(state.message)
        record = await opened.records.get(incident.id)
        assert record is not None
        assert record.attempts[0].outcomes == ()
    finally:
        opened.inventory = before


async def test_a_watcher_without_anything_to_watch_says_so(opened: Live) -> None:
    assert await load_alerts("lab") is None
    state: State[Any] = await watch("lab", return_state=True)
    assert "nothing to watch" in str(state.message)
