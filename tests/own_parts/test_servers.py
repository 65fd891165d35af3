"""What a remediation leans on is killed: Prefect's server, the PostgreSQL of that, the worker, the whole machine, a run that waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import arun_deployment

from blocks.inventory import load_inventory
from blocks.schema import Autonomy
from tasks.clients.runtime import SupervisedProcess
from tasks.core.models import FixRecord, Verdict
from tests.flows.cache_fault import inventory_with
from tests.own_parts.remediations import until
from tests.own_parts.scene import Held, Scene, World, healed, run_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("without_a_model")]

BEFORE_A_STEP = Held("evenkeel_steps", "INSERT", "NEW.ordinal = 1")
BY_THE_RUNBOOK = [96.0]
AWAY_SECONDS = 3.0
RUN_ID = "PREFECT__FLOW_RUN_ID"


async def kill_server(world: World) -> None:
    await world.run(world.plane.processes.kill("server"))


async def start_server(world: World) -> None:
    await world.run(world.plane.processes.start("server"))


async def kill_database(world: World) -> None:
    await SupervisedProcess(str(world.prefect_database.control), "database").signal("SIGKILL")


async def start_database(world: World) -> None:
    await SupervisedProcess(str(world.prefect_database.control), "database").restart()


@pytest.mark.parametrize(
    ("kill", "start"), [pytest.param(kill_server, start_server, id="server"), pytest.param(kill_database, start_database, id="database")]
)
async def test_a_remediation_waits_for_prefect_and_is_finished(
    scene: Scene, kill: Callable[[World], Awaitable[None]], start: Callable[[World], Awaitable[None]]
) -> None:
    remediation = scene.remediations.next()
    async with BEFORE_A_STEP.on(scene.world.lab) as hold:
        remediation.begin()
        await hold.reached()
        await kill(scene.world)
    # It stands before the step, as whether everything is stopped can't be read.
    await asyncio.sleep(AWAY_SECONDS)
    assert await scene.limits() == []
    await start(scene.world)
    assert await remediation.ended(180) == 0
    (record,) = await scene.records()
    assert (record.verdict, await scene.limits(), await scene.is_healthy()) == (Verdict.COMPLETED, BY_THE_RUNBOOK, True), record.message
    assert (await run_of(record)).state_name == "Completed"
    await scene.assert_nothing_is_stuck()


@pytest.fixture
async def worker(scene: Scene) -> AsyncIterator[str]:
    """The name of a worker that runs."""
    plane = scene.world.plane
    await scene.world.run(plane.start_worker({}))
    yield "worker"
    await scene.world.run(plane.processes.end("worker"))


async def restart(world: World, name: str) -> None:
    await world.run(world.plane.processes.start(name))


async def ending_of(run: FlowRun) -> State[Any] | None:
    """The final state of a run, once it has one."""
    async with get_client() as client:
        state = (await client.read_flow_run(run.id)).state
    return state if state is not None and state.is_final() else None


async def test_a_run_outlives_its_worker_and_no_other_repeats_it(scene: Scene, worker: str) -> None:
    async with BEFORE_A_STEP.on(scene.world.lab) as hold:
        run = await arun_deployment("remediate/by-hand", parameters={"resource": "shop-cache"}, timeout=0, as_subflow=False)
        await hold.reached()
        await scene.world.run(scene.world.plane.processes.kill(worker, alone=True))
        await restart(scene.world, worker)
    ended = await until("the end of the run", lambda: ending_of(run))
    assert ended.name == "Completed", ended.message
    (record,) = await scene.records()
    assert (record.flow_run_id, record.verdict, await scene.limits()) == (str(run.id), Verdict.COMPLETED, BY_THE_RUNBOOK)
    await scene.assert_nothing_is_stuck()


async def test_what_ran_on_a_machine_that_is_gone_is_taken_over(scene: Scene, worker: str) -> None:
    """The worker, its monitor, and the remediation in that, all at once; a monitor elsewhere finds it."""
    watching = {"inventory": "lab", "sweep_every_seconds": 1, "window_seconds": 600}
    async with BEFORE_A_STEP.on(scene.world.lab) as hold:
        run = await arun_deployment("monitor/lab", parameters=watching, timeout=0, as_subflow=False)
        await hold.reached()
        await scene.world.run(scene.world.plane.processes.kill(worker))
    records = await scene.watched(healed)
    assert [record.verdict for record in records] == [Verdict.ABANDONED, Verdict.COMPLETED]
    assert await scene.limits() == BY_THE_RUNBOOK
    # Both the remediation's run and the monitor's, which it was a part of.
    assert (await run_of(records[0])).state_name == "Crashed"
    assert (await until("the end of the monitor's run", lambda: ending_of(run))).name == "Crashed"
    await restart(scene.world, worker)
    await scene.assert_nothing_is_stuck()
    assert [one.verdict for one in await scene.records()] == [Verdict.ABANDONED, Verdict.COMPLETED]


async def test_an_answer_waits_for_a_worker_and_is_not_lost_without_a_word(scene: Scene, worker: str) -> None:
    """The machine goes while a person is asked; and once more at the very moment of the answer."""
    cautious = scene.opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE})
    async with inventory_with(cautious):
        remediation = scene.remediations.next()
        remediation.begin()
        assert await remediation.ended() == 0
    asks = await until("the run that asks", lambda: suspended(scene))
    await scene.world.run(scene.world.plane.processes.kill(worker))
    await restart(scene.world, worker)
    answered = Held("evenkeel_fixes", "UPDATE", "OLD.waiting_until IS NOT NULL AND NEW.waiting_until IS NULL AND NEW.closed_at IS NULL")
    async with answered.on(scene.world.lab) as hold:
        async with get_client() as client:
            await client.resume_flow_run(asks.id, run_input={"answer": "approve", "step_1": {"mebibytes": 90}})
        await hold.reached()
        process_of(asks).kill()
    # What is left to a person is left alone.
    async with inventory_with(escalation_pause_seconds=600):
        scene.opened.inventory = await load_inventory("lab")
        records = await scene.watched(lambda found: found[-1].verdict is Verdict.ESCALATED)
    assert [record.verdict for record in records] == [Verdict.ESCALATED]
    assert "the run that asked for an answer ended as Crashed; nothing of the plan was done" in records[0].message
    assert await scene.limits() == []
    await scene.assert_nothing_is_stuck()


async def suspended(scene: Scene) -> FlowRun | None:
    """The run that waits for a person's answer."""
    record: FixRecord = (await scene.records())[-1]
    run = await run_of(record)
    return run if run.state is not None and run.state.is_paused() else None


def process_of(run: FlowRun) -> psutil.Process:
    """The process of a flow run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_ID) == str(run.id) and "prefect.engine" in " ".join(process.cmdline()):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"no process of run {run.name}")
