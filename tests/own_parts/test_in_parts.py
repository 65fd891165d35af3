"""Faults of a server in several parts with a broker between them, and of a run that nobody is left to mark."""

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from blocks.vanished import vanished
from compose.scale import ScaleStack, scale_stack
from flows.reset import reset
from tasks.connecting import live
from tasks.core.models import Verdict
from tests.conftest import StartLab
from tests.flows.cache_fault import empty, fill
from tests.own_parts.remediations import ROOT, Remediations, until
from tests.own_parts.scene import Held, Scene, World, deploy, forget_what_was_said, now, registration, runs_under_way
from tests.prefect_events import events_go_to

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BEFORE_A_STEP = Held("evenkeel_steps", "INSERT", "NEW.ordinal = 1")
BY_THE_RUNBOOK = [96.0]
AWAY_SECONDS = 3.0
PARTS = ("broker", "services", "api-1", "balancer", "database")
SILENCE_SECONDS = 12.0
"""Hardly more than the least that Prefect knows."""
WATCH = """
import asyncio
from prefect import tags
from flows.monitor import monitor

with tags("evenkeel"):
    asyncio.run(monitor("lab", 1, 600))
"""


async def test_of_a_server_in_parts_any_may_go_while_something_is_healed(tmp_path: Path, start_partial_lab: StartLab) -> None:
    with start_partial_lab("cache", "database") as lab:
        async with scale_stack(tmp_path / "stack") as stack:
            settings = {**stack.plane.client_settings, PREFECT_LOGGING_TO_API_ENABLED: False}
            with temporary_settings(updates=settings), events_go_to(stack.plane.api_url):
                inventory = registration(lab, tmp_path)
                await stack.plane.run("-m", "blocks.register", str(inventory), "--env-file", str(lab.environment_path))
                await deploy(stack.plane)
                world = World(lab, stack.prefect_database, stack.plane, None, 0)
                await reset()
                async with live("lab") as opened:
                    for part in PARTS:
                        await fill(lab, 96)
                        await forget_what_was_said(lab)
                        await is_finished_without(part, Scene(world, opened, Remediations(stack.plane, 0), now()), stack)
                        await empty(lab)
                        assert await task_runs_of_a_reset(), f"{part}: what runs is no longer recorded"


async def is_finished_without(part: str, scene: Scene, stack: ScaleStack) -> None:
    """Kill a part while a worker's run is about to take its step, and have it back a moment later."""
    async with BEFORE_A_STEP.on(scene.world.lab) as hold:
        run = await arun_deployment("remediate/by-hand", parameters={"resource": "shop-cache"}, timeout=0, as_subflow=False)
        await hold.reached()
        await stack.kill(part)
    await asyncio.sleep(AWAY_SECONDS)
    await stack.start(part)

    async def ended() -> str | None:
        async with get_client() as client:
            state = (await client.read_flow_run(run.id)).state
        return state.name if state is not None and state.is_final() else None

    assert await until(f"{part}: the end of the run", ended, 120) == "Completed"
    (record,) = await scene.records()
    assert (record.verdict, await scene.limits(), await scene.is_healthy()) == (Verdict.COMPLETED, BY_THE_RUNBOOK, True), part
    await scene.assert_nothing_is_stuck()


async def task_runs_of_a_reset() -> bool:
    """Whether what Prefect's server hears through the broker arrives: the task runs of a flow."""
    state = await reset(return_state=True)
    run_id = state.state_details.flow_run_id
    assert run_id is not None

    async def recorded() -> bool | None:
        async with get_client() as client:
            found = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        return True if found else None

    return await until("the task runs on record", recorded)


async def test_a_run_whose_process_is_gone_with_its_worker_is_ended_by_prefect(scene: Scene) -> None:
    """Nothing was being healed, so no sweep knows of it."""
    automation = vanished(SILENCE_SECONDS).model_copy(update={"name": "impatient"})
    async with get_client() as client:
        automation_id = await client.create_automation(automation)
        await empty(scene.world.lab)
        watching = await asyncio.create_subprocess_exec(sys.executable, "-c", WATCH, cwd=ROOT, env=scene.world.plane.environment)
        try:
            run = await until("the monitor's run", lambda: the_monitor(scene))
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            watching.kill()
            await watching.wait()
        assert [one.id for one in await runs_under_way()] == [run.id]

        async def crashed() -> FlowRun | None:
            found = await client.read_flow_run(run.id)
            return found if found.state_name == "Crashed" else None

        found = await until("its end", crashed, 120)
        assert found.state is not None
        assert "its process is gone" in str(found.state.message)
        await client.delete_automation(automation_id)
    await scene.assert_nothing_is_stuck()


async def the_monitor(scene: Scene) -> FlowRun | None:
    """Once it has swept, which is after its first heartbeat."""
    holder = await scene.opened.records.current_monitor("lab")
    if holder is None or holder[1] is None or holder[1] < scene.since:
        return None
    async with get_client() as client:
        run = await client.read_flow_run(UUID(holder[0]))
    return run if run.state_name == "Running" else None
