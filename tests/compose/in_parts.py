"""The distributed stack: two replicas of the API, services apart, Redis between them, and a worker in each of two pools."""

import asyncio
import stat
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import psutil
import pytest
import redis.asyncio
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import FlowRun
from prefect.events.actions import PauseDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import temporary_settings

from blocks.inventory import load_inventory
from blocks.schema import Autonomy
from compose.control_plane import WORK_POOL
from compose.description import LabDescription
from compose.scale import ScaleStack, scale_stack
from compose.scale_plane import ENVIRONMENT
from tasks.core.parts import Share
from tasks.records.repository import Records
from tests.flows.cache_fault import connect, empty, fill, inventory_with, maxmemory_mib

POOL = "berlin"
SECONDS = 120.0
WINDOW_SECONDS = 300.0
DEFAULT_POOL = {"EVENKEEL_INVENTORY": "lab", "EVENKEEL_POOL": WORK_POOL}
T = TypeVar("T")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Prefect's own clients are left open for the process to end; they are not ours to close.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The loop that the stack's processes belong to."""
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def lab(start_partial_lab: Callable[..., AbstractContextManager[LabDescription]]) -> Iterator[LabDescription]:
    """What is watched: the database from the default pool, the cache from another one."""
    with start_partial_lab("database", "cache") as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner, lab: LabDescription) -> Iterator[ScaleStack]:
    starting = scale_stack(tmp_path_factory.mktemp("scale"), pools=(WORK_POOL, POOL))

    async def deploy(running: ScaleStack) -> None:
        words = ("-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "docs/deployments.yaml", "--all")
        async with asyncio.TaskGroup() as group:
            group.create_task(running.register(lab.inventory_path, lab.environment_path, {"shop-cache": POOL}))
            group.create_task(running.plane.run(*words, environment=DEFAULT_POOL))
            group.create_task(running.deploy("lab", POOL))
        with running.client() as client:
            async with client:
                for name in ("monitor/lab", f"monitor/lab-{POOL}"):
                    await client.pause_deployment((await client.read_deployment_by_name(name)).id)

    running = runner.run(starting.__aenter__())
    try:
        runner.run(deploy(running))
        yield running
    finally:
        runner.run(starting.__aexit__(None, None, None))


async def until(what: str, look: Callable[[], Awaitable[T | None]]) -> T:
    deadline = time.monotonic() + SECONDS
    while (found := await look()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS:g} s"
        await asyncio.sleep(0.2)
    return found


def asked(stack: ScaleStack, replica: int) -> httpx.AsyncClient:
    """A client of one replica's REST API."""
    username, _, password = stack.auth.partition(":")
    return httpx.AsyncClient(base_url=stack.replica_urls[replica - 1], auth=(username, password), trust_env=False, timeout=20)


async def start_monitor(stack: ScaleStack, name: str) -> FlowRun:
    with stack.client() as client:
        async with client:
            found = await client.read_deployment_by_name(name)
            parameters = {"sweep_every_seconds": 1, "window_seconds": WINDOW_SECONDS}
            return await client.create_flow_run_from_deployment(found.id, parameters=parameters)


def runs_below(stack: ScaleStack, worker: str) -> set[str]:
    """The flow runs whose processes a worker has started, as the kernel tells it."""
    found = set()
    for child in psutil.Process(stack.pid(worker)).children(recursive=True):
        try:
            found.add(child.environ().get("PREFECT__FLOW_RUN_ID", ""))
        except psutil.NoSuchProcess:
            continue
    return found - {""}


async def latest(stack: ScaleStack, replica: int, key: str) -> str:
    """The data of an artifact's latest version, as one replica tells it."""
    async with asked(stack, replica) as client:
        answer = await client.get(f"/artifacts/{key}/latest")
    return str(answer.json()["data"]) if answer.is_success else ""


def test_nobody_gets_in_without_the_auth_string(stack: ScaleStack, runner: asyncio.Runner) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as anybody:
            for url in (*stack.replica_urls, stack.plane.api_url):
                assert (await anybody.post(f"{url}/block_documents/filter", json={"include_secrets": True})).status_code == 401, url
                assert (await anybody.post(f"{url}/flows/count", json={}, auth=("evenkeel", "guessed"))).status_code == 401, url
                assert (await anybody.get(f"{url}/health")).is_success, url
        for replica in (1, 2):
            async with asked(stack, replica) as client:
                assert (await client.post("/flows/count", json={})).is_success

    runner.run(ask())
    kept = stack.directory / ENVIRONMENT
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stack.auth in kept.read_text(encoding="utf-8")
    password = stack.auth.partition(":")[2]
    for part in stack.parts:
        assert password not in stack.log(part).read_text(encoding="utf-8", errors="replace"), part
    for process in psutil.process_iter():
        try:
            assert password not in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue


def test_each_pool_heals_its_own_while_a_replica_is_dead(stack: ScaleStack, lab: LabDescription, runner: asyncio.Runner) -> None:
    async def heal() -> None:
        workers = {f"worker-{WORK_POOL}-1": await start_monitor(stack, "monitor/lab")}
        workers[f"worker-{POOL}-1"] = await start_monitor(stack, f"monitor/lab-{POOL}")
        for worker, run in workers.items():

            async def runs(worker: str = worker, run: FlowRun = run) -> bool | None:
                return str(run.id) in runs_below(stack, worker) or None

            await until(f"run of {worker}", runs)

        async def both_are_watched() -> str | None:
            table = await latest(stack, 2, "status-lab")
            return table if "shop-db" in table and "shop-cache" in table else None

        await until("one table of both pools", both_are_watched)
        await stack.kill("api-1")
        began = datetime.now(UTC)
        await fill(lab, 97)
        await until("the cache's new limit", lambda: raised(lab, 64))
        remediation = await until("the remediation over replica 2", lambda: completed(stack, 2, began))
        await stack.start("api-1")
        assert await completed(stack, 1, began) == remediation
        assert "redis_set_maxmemory" in await latest(stack, 1, "fixes-lab")
        # It is a subflow of the pool's monitor, whose process is the pool's worker's.
        async with asked(stack, 1) as client:
            task = (await client.get(f"/task_runs/{remediation['parent_task_run_id']}")).json()
        assert task["flow_run_id"] == str(workers[f"worker-{POOL}-1"].id)
        assert task["flow_run_id"] in runs_below(stack, f"worker-{POOL}-1")

    on_clean_ground(runner, stack, lab, heal)


async def completed(stack: ScaleStack, replica: int, since: datetime) -> dict[str, Any] | None:
    """The first remediation since then, once it is completed, as one replica tells it."""
    begun = {
        "flows": {"name": {"any_": ["remediate"]}},
        "flow_runs": {"start_time": {"after_": since.isoformat()}},
        "sort": "START_TIME_ASC",
    }
    async with asked(stack, replica) as client:
        found: list[dict[str, Any]] = (await client.post("/flow_runs/filter", json=begun)).json()
    done = [{name: run[name] for name in ("id", "parent_task_run_id")} for run in found if run["state"]["name"] == "Completed"]
    return done[0] if done else None


async def raised(lab: LabDescription, mebibytes: float) -> bool | None:
    return await maxmemory_mib(lab) > mebibytes or None


async def end_monitors(stack: ScaleStack) -> None:
    """Wait until none runs, also none that its schedule began before it was paused."""
    records = await Records.open(stack.records_url)
    begun = {"flows": {"name": {"any_": ["monitor"]}}, "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}}

    async def ended() -> bool | None:
        # One whose place was taken ends at its next sweep.
        for share in (Share(inventory="lab"), Share(inventory="lab", pool=POOL)):
            await records.release_monitor(share.key, datetime.now(UTC))
        async with asked(stack, 2) as client:
            return (await client.post("/flow_runs/count", json=begun)).json() == 0 or None

    try:
        await until("the end of all monitors", ended)
    finally:
        await records.close()


def on_clean_ground(runner: asyncio.Runner, stack: ScaleStack, lab: LabDescription, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Without a monitor, and with the cache as it was, before and afterwards."""

    async def clean() -> None:
        await end_monitors(stack)
        await empty(lab)
        async with connect(lab) as cache:
            await cache.config_set("maxmemory", "64mb")

    runner.run(clean())
    try:
        runner.run(work())
    finally:
        runner.run(clean())


def test_a_person_is_asked_by_a_run_of_the_resources_own_pool(stack: ScaleStack, lab: LabDescription, runner: asyncio.Runner) -> None:
    async def ask() -> None:
        with temporary_settings(updates=stack.plane.client_settings):
            cautious = (await load_inventory("lab")).resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE})
            async with inventory_with(cautious):
                await start_monitor(stack, f"monitor/lab-{POOL}")
                await fill(lab, 97)
                with stack.client(2) as client:
                    async with client:
                        asking = (await client.read_deployment_by_name(f"approve/{POOL}")).id
                        of_it = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[asking]))

                        async def suspended() -> FlowRun | None:
                            found = await client.read_flow_runs(flow_run_filter=of_it)
                            return next((run for run in found if run.state is not None and run.state.name == "Suspended"), None)

                        run = await until("the run that waits", suspended)
                        assert run.work_pool_name == POOL
                        assert await maxmemory_mib(lab) == 64
                        await client.resume_flow_run(run.id, run_input={"answer": "approve", "comment": "", "step_1": {"mebibytes": 90}})
                        await until("what was approved", lambda: raised(lab, 89))
                        assert await maxmemory_mib(lab) == 90

    on_clean_ground(runner, stack, lab, ask)


def test_an_event_at_one_replica_reaches_the_services_through_redis(stack: ScaleStack, runner: asyncio.Runner) -> None:
    async def tell() -> None:
        with stack.client() as client:
            async with client:
                target = await client.read_deployment_by_name(f"watch/lab-{POOL}")
                assert not target.paused
                trigger = EventTrigger(expect={"evenkeel.test.told"}, posture=Posture.Reactive, threshold=1)
                action = PauseDeployment(source="selected", deployment_id=target.id)
                await client.create_automation(AutomationCore(name="told by a test", trigger=trigger, actions=[action]))

                async def tell_and_look() -> bool | None:
                    # The services learn of a new automation a moment after it is saved.
                    event = {
                        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                        "id": str(uuid4()),
                        "event": "evenkeel.test.told",
                        "resource": {"prefect.resource.id": "evenkeel.test"},
                    }
                    async with asked(stack, 2) as second:
                        (await second.post("/events", json=[event])).raise_for_status()
                    await asyncio.sleep(0.5)
                    return (await client.read_deployment(target.id)).paused or None

                await until("the automation's effect", tell_and_look)
        async with redis.asyncio.Redis.from_url(stack.broker_url, decode_responses=True) as broker:
            assert {group["name"] for group in await broker.xinfo_groups("events")} >= {"reactive-triggers"}
            assert "noeviction" in (await broker.config_get("maxmemory-policy")).values()

    runner.run(tell())
