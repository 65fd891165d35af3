"""The watcher on real servers: an alert heals what the scheduled monitor, which is held, would not; and a rise is met before it hurts."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
from blocks.inventory import save_inventory
from blocks.schema import Inventory, Kind, Resource, Rules
from compose.control_plane import ControlPlane
from compose.description import LabDescription, free_ports
from flows.monitor import monitor
from flows.remediate import remediate
from flows.watch import of_pool, watch
from tasks.connecting import Live, live
from tasks.core.detection import open_incident
from tasks.core.models import Finding, Forecast, Health, Verdict
from tasks.core.trends import still_predicted
from tasks.probing import probe_resource
from tests.flows.cache_fault import empty, fill, maxmemory_mib
from tests.tasks.engine import container, docker

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


def test_a_watcher_knows_what_is_of_its_pool_alone() -> None:
    def resource(name: str, pool: str | None) -> Resource:
        return Resource(name=name, kind=Kind.REDIS, address="127.0.0.1:1", pool=pool)

    known = (resource("here", None), resource("there", "berlin"))
    inventory = Inventory(name="shop", resources=known)
    assert [one.name for one in of_pool(inventory, "").resources] == ["here"]
    assert [one.name for one in of_pool(inventory, "berlin").resources] == ["there"]


async def verdict(opened: Live, since: datetime) -> None:
    async def is_closed() -> bool:
        return any(one.verdict for one in await opened.records.history(inventory=opened.inventory.name, since=since, limit=5))

    await until(is_closed)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 60
    while not await condition():
        assert time.monotonic() < deadline, "not reached in time"
        await asyncio.sleep(0.1)


async def steady(opened: Live, resource: Resource) -> bool:
    """Whether the watcher is at work, and has seen the resource well."""
    holder = await opened.records.current_monitor(f"{opened.inventory.name}/events")
    return holder is not None and holder[1] is not None and (await probe_resource(opened, resource)).health is Health.HEALTHY


@pytest.mark.slow
@pytest.mark.docker
async def test_a_killed_process_is_seen_by_the_engines_event(prefect_server: ControlPlane) -> None:
    with container() as name:
        resource = Resource(name="box", kind=Kind.CONTAINER, address=name)
        inventory = Inventory(name="boxes", resources=(resource,), rules=Rules(settle_seconds=0.5, cooldown_seconds=0))
        async with get_client() as client:
            await save_inventory(client, inventory)
        async with live("boxes") as opened:
            run: asyncio.Task[State[Any]] = asyncio.ensure_future(watch("boxes", 300, return_state=True))
            try:
                await until(lambda: steady(opened, resource))
                since = datetime.now(UTC)
                process = int(docker("inspect", "-f", "{{.State.Pid}}", name))
                assert process > 1  # 0, where it does not run, would be this process's own group
                killed_at = datetime.now(UTC)
                os.kill(process, signal.SIGKILL)
                await verdict(opened, since)
                # And while the scheduled monitor sees it too, it is healed once.
                scheduled = asyncio.ensure_future(monitor("boxes", 0.2, 6, return_state=True))
                await asyncio.sleep(1)
                again = datetime.now(UTC)
                docker("kill", "--signal", "KILL", name)
                await verdict(opened, again)
                await scheduled
                holder = await opened.records.current_monitor("boxes")
            finally:
                await opened.records.take_over_monitor("boxes/events", "the tests", datetime.now(UTC))
                state = await run
            second, record = await opened.records.history(inventory="boxes", since=since, limit=5)
            assert second.opened_at >= again
            assert second.verdict is Verdict.COMPLETED, second.message
            print(f"kill -9 -> detected {(record.opened_at - killed_at).total_seconds():.3f} s, {record.timings}")
            assert record.verdict is Verdict.COMPLETED, record.message
            assert docker("inspect", "-f", "{{.State.Running}}", name) == "true"
            assert f"Look at box: container {name} died (exit code 137)" in [look.name for look in await looks_of(state)]
            assert await opened.records.current_monitor("boxes") == holder


@pytest.mark.slow
async def test_a_rise_that_the_run_before_has_seen_is_met_by_what_nobody_feels(opened: Live, lab: LabDescription) -> None:
    """At 80 % and rising by 1.8 points a minute: 95 % is 8 minutes away, within the horizon."""
    since = datetime.now(UTC)
    assert await fill(lab, 80) >= 80
    now = datetime.now(UTC).timestamp() - 26
    risen = tuple((now - 25 * age, 80 - 0.03 * (26 + 25 * age)) for age in range(71, -1, -1))
    await opened.records.save_histories("lab", {"shop-cache": {"memory_percent": risen}})
    try:
        await monitor("lab", 1, 6)
        (record,) = await opened.records.history(inventory="lab", since=since, limit=5)
        assert record.before.predicted
        assert re.match(r"predicted: memory_percent is (79|80)", record.incident.summary)
        assert record.verdict is Verdict.COMPLETED, record.message
        assert [one.step.tool for one in record.attempts[0].outcomes] == ["redis_set_maxmemory"]
        assert record.attempts[0].decisions == ("allow: reversible, and memory_high is predicted",)
        assert await maxmemory_mib(lab) > 64
        # The rise was dealt with: it is no rise of the next run.
        assert len((await opened.records.histories("lab", ["shop-cache"]))["shop-cache"]["memory_percent"]) <= 1
    finally:
        await empty(lab)
        await opened.records.save_histories("lab", {"shop-cache": {}})


@pytest.mark.slow
async def test_nothing_that_is_felt_is_done_for_a_prediction(opened: Live, lab: LabDescription) -> None:
    assert await fill(lab, 80) >= 80
    before = opened.inventory
    resource = before.resource("shop-cache")
    full = resource.model_copy(update={"limits": resource.limits.model_copy(update={"memory_mib": None})})
    opened.inventory = before.model_copy(update={"resources": tuple(full if one.name == full.name else one for one in before.resources)})
    try:
        pace = Forecast(metric="memory_percent", per_second=0.05)
        rising = Finding(symptom="memory_high", health=Health.DEGRADED, summary="", forecast=pace)
        incident = open_incident("lab", still_predicted(await probe_resource(opened, full), [rising], full), datetime.now(UTC))
        state: State[Any] = await remediate("shop-cache", incident=incident, return_state=True)
        assert state.name == Verdict.NO_ACTION_NEEDED.value, state.message
        assert "redis_evict_to was planned, but memory_high is only predicted" in str(state.message)
        record = await opened.records.get(incident.id)
        assert record is not None
        assert record.attempts[0].outcomes == ()
    finally:
        opened.inventory = before
        await empty(lab)


async def test_a_watcher_without_anything_to_watch_says_so(opened: Live) -> None:
    assert await load_alerts("lab") is None
    state: State[Any] = await watch("lab", return_state=True)
    assert "nothing to watch" in str(state.message)
