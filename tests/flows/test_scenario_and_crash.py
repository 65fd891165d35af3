"""The scenarios as a person starts them, and a monitor that is killed in the middle of a remediation."""

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from compose.control_plane import ControlPlane
from compose.description import LabDescription
from compose.lab import states
from flows.catalogue import catalogue
from flows.monitor import monitor
from flows.scenario import scenario
from tasks.clients.runtime import SupervisedProcess
from tasks.connecting import Live
from tasks.core.models import Verdict

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    "name",
    [
        "redis_memory_pressure",
        pytest.param("postgres_connection_overload", marks=pytest.mark.slow),
        pytest.param("nginx_connection_overload", marks=pytest.mark.slow),
    ],
)
async def test_a_scenario_is_healed_with_no_harm(opened: Live, name: str) -> None:
    state: State[Any] = await scenario(name, sustain_seconds=1, return_state=True)
    result = await state.aresult(raise_on_failure=False)
    assert not isinstance(result, Exception), result
    assert result.problems == ()
    assert result.data_unharmed
    assert result.as_expected
    assert result.outcome == "healed"
    assert 0 < result.detected_seconds < result.planned_seconds < result.healthy_seconds < 20


async def test_an_unknown_scenario_is_named_with_the_known_ones(prefect_server: ControlPlane) -> None:
    with pytest.raises(ValueError, match="redis_memory_pressure"):
        await scenario("no_such_fault")


async def test_a_dry_run_injects_nothing(opened: Live) -> None:
    state: State[Any] = await scenario("redis_memory_pressure", autonomy="propose", return_state=True)
    assert state.message is not None
    assert state.message.startswith("dry run, nothing is injected: on shop-cache")


async def test_a_dry_run_of_the_catalogue_tells_of_each_fault_that_fits_and_injects_none(opened: Live) -> None:
    since = datetime.now(UTC)
    state: State[Any] = await catalogue(["redis_memory_pressure", "container_frozen"], autonomy="propose", return_state=True)
    assert state.is_completed()
    assert await opened.records.history(inventory="lab", since=since, limit=5) == []
    with pytest.raises(ValueError, match=r"names: no scenario 'no_such_fault'; known: .*redis_memory_pressure"):
        await catalogue(["no_such_fault"])


@pytest.mark.slow
async def test_a_killed_monitor_is_taken_over_and_nothing_runs_twice(
    opened: Live, lab: LabDescription, prefect_server: ControlPlane
) -> None:
    """Kill -9 while a restart is under way: the supervisor is frozen, so the step is certain to be in flight."""
    since = datetime.now(UTC)
    cache = SupervisedProcess(str(lab.control), "cache")
    before = await cache.status()
    starts = starts_of_cache(lab)
    supervisor = psutil.Process(psutil.Process(before.pid).ppid())
    code = "import asyncio; from flows.monitor import monitor; asyncio.run(monitor('lab', 1, 60))"
    watching = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        cwd=ROOT,
        env=prefect_server.environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: monitored(opened), 30)
        await cache.signal("SIGKILL")
        supervisor.suspend()
        await until(lambda: step_begun(opened), 30)
        watching.kill()
        await watching.wait()
    finally:
        supervisor.resume()
        if watching.returncode is None:
            watching.kill()
            await watching.wait()
    assert [one.resource for one in await opened.records.open_fixes("lab")] == ["shop-cache"]
    await monitor("lab", 1, 14)
    records = await opened.records.history(inventory="lab", since=since, limit=10)
    assert records[-1].verdict is Verdict.ABANDONED
    assert "redis_restart" in records[-1].message
    assert await opened.records.open_fixes("lab") == []
    async with get_client() as client:
        run = await client.read_flow_run(records[-1].flow_run_id)  # type: ignore[arg-type]
        assert run.state is not None
        assert run.state.is_crashed()
    assert (await cache.status()).state == "running"
    # The restart that was in flight is the only one: whoever took over measured first and found it done.
    assert starts_of_cache(lab) == starts + 1


def starts_of_cache(lab: LabDescription) -> int:
    return int(next(one["starts"] for one in states(lab) if one["name"] == "cache"))


async def monitored(opened: Live) -> bool:
    holder = await opened.records.current_monitor("lab")
    return holder is not None and holder[1] is not None and (datetime.now(UTC) - holder[1]).total_seconds() < 1.5


async def step_begun(opened: Live) -> bool:
    found = await opened.records.open_fixes("lab")
    return bool(found) and bool(await opened.records.interrupted_steps(found[0].fix_id))


async def until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "not reached in time"
        await asyncio.sleep(0.05)
