"""A person is asked, and answers in the Prefect UI or does not. A real worker runs the runs that wait."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
import pytest
from playwright.async_api import Page, async_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.logging import disable_run_logger

from blocks.schema import Autonomy
from compose.control_plane import WORK_POOL, ControlPlane
from compose.description import LabDescription
from flows.remediate import remediate
from tasks import connecting
from tasks.connecting import Live
from tasks.core.models import FixRecord, Verdict
from tasks.core.silence import Silences
from tasks.recording import take_over_abandoned
from tests.flows.cache_fault import empty, fill, inventory_with, maxmemory_mib

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium")
SCREENSHOTS = ROOT / "build" / "screenshots"
SEEN_MILLISECONDS = 20_000
SECONDS = 90.0
T = TypeVar("T")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Worker:
    """A Prefect worker as a process of its own, which a test may end and start again."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--name", "tests"],
            cwd=ROOT,
            env=self._plane.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        if self._process is None:
            return
        children = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        for child in children:
            if child.is_running():
                child.kill()
        self._process = None


@pytest.fixture(scope="module")
def worker(control_plane: ControlPlane) -> Iterator[Worker]:
    running = Worker(control_plane)
    running.start()
    yield running
    running.end()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: install Debian's package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        opened = await browser.new_page(viewport={"width": 1440, "height": 1100})
        await opened.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
        yield opened
        await browser.close()


async def until(what: str, look: Callable[[], Awaitable[T | None]], seconds: float = SECONDS) -> T:
    deadline = time.monotonic() + seconds
    while (found := await look()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.1)
    return found


async def ask(opened: Live, lab: LabDescription, **rules: Any) -> FixRecord:
    """A full cache for which every change asks a person; answers the remediation that waits."""
    since = datetime.now(UTC)
    cautious = opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE})
    await fill(lab, 96)
    token = connecting._current.set(None)  # as in a process of its own
    try:
        async with inventory_with(cautious, **rules):
            state = await remediate("shop-cache", return_state=True)
    finally:
        connecting._current.reset(token)
    assert state.name == "AwaitingApproval"
    assert "waits for a person until" in str(state.message)
    return (await opened.records.history(inventory="lab", since=since, limit=1))[0]


async def give_up(opened: Live, fix: FixRecord) -> None:
    """Whatever a failing test left waiting must not hold the resource."""
    await opened.records.expire(fix.id, datetime.now(UTC) + timedelta(days=1), "the test is over")


async def waiting_run(opened: Live, fix: str, besides: str = "") -> FlowRun:
    """The run that asks about a remediation, once it is suspended."""

    async def look() -> FlowRun | None:
        record = await opened.records.get(fix)
        assert record is not None
        assert record.verdict is None, f"{record.verdict}: {record.message}"
        if record.flow_run_id == besides:
            return None
        async with get_client() as client:
            run = await client.read_flow_run(UUID(record.flow_run_id))
        return run if run.state is not None and run.state.name == "Suspended" else None

    return await until("a suspended run", look)


async def closed(opened: Live, fix: str) -> FixRecord:
    async def look() -> FixRecord | None:
        record = await opened.records.get(fix)
        return record if record is not None and record.verdict is not None else None

    return await until("the remediation's end", look)


async def open_form(page: Page, plane: ControlPlane, run: FlowRun) -> Any:
    await page.goto(f"{plane.ui_url}/v2/runs/flow-run/{run.id}")
    await page.get_by_role("button", name="Open menu").click(timeout=SEEN_MILLISECONDS)
    await page.get_by_role("menuitem", name="Resume").click(timeout=SEEN_MILLISECONDS)
    form = page.get_by_role("dialog")
    await form.get_by_text("what could be lost").first.wait_for(timeout=SEEN_MILLISECONDS)
    return form


async def choose(page: Page, form: Any, answer: str) -> None:
    await form.get_by_text("Select", exact=True).click(timeout=SEEN_MILLISECONDS)
    await page.get_by_role("option", name=answer).click(timeout=SEEN_MILLISECONDS)


@pytest.mark.ui
async def test_a_person_rejects_edits_and_approves_in_the_ui(
    opened: Live, lab: LabDescription, prefect_server: ControlPlane, worker: Worker, page: Page
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    fix = await ask(opened, lab)
    try:
        first = await waiting_run(opened, fix.id)
        form = await open_form(page, prefect_server, first)
        await page.screenshot(path=SCREENSHOTS / "approval.png")
        await choose(page, form, "reject")
        await form.get_by_role("textbox").first.fill("not while the sale is on")
        await form.get_by_role("button", name="Resume").click()
        cautious = opened.inventory.resource("shop-cache").model_copy(update={"autonomy": Autonomy.APPROVE})
        async with inventory_with(cautious):
            second = await waiting_run(opened, fix.id, besides=str(first.id))
            assert await maxmemory_mib(lab) == 64
            record = await opened.records.get(fix.id)
            assert record is not None
            assert "not while the sale is on" in record.attempts[0].comment
            assert record.attempts[0].outcomes == ()
            assert [step.tool for step in record.attempts[1].plan.steps] == ["redis_evict_to"]

            form = await open_form(page, prefect_server, second)
            await choose(page, form, "approve")
            percent = form.get_by_role("spinbutton").or_(form.locator("input[type=number]")).first
            await percent.fill("50")
            await form.get_by_role("button", name="Resume").click()
            record = await closed(opened, fix.id)
        assert record.verdict is Verdict.COMPLETED, record.message
        outcome = record.attempts[1].outcomes[0]
        assert (outcome.step.tool, outcome.step.args) == ("redis_evict_to", {"percent": 50})
        assert await maxmemory_mib(lab) == 64
    finally:
        await give_up(opened, fix)
        await empty(lab)


@pytest.mark.ui
async def test_without_an_answer_in_time_it_is_escalated(
    opened: Live, lab: LabDescription, prefect_server: ControlPlane, worker: Worker, page: Page
) -> None:
    fix = await ask(opened, lab, approval_seconds=20)
    try:
        run = await waiting_run(opened, fix.id)

        async def look() -> FixRecord | None:
            # What every sweep does.
            with disable_run_logger():
                await take_over_abandoned(opened, Silences())
            record = await opened.records.get(fix.id)
            return record if record is not None and record.verdict is not None else None

        record = await until("the end of its time", look)
        assert record.verdict is Verdict.ESCALATED
        assert "nobody answered" in record.message
        assert record.attempts[0].outcomes == ()
        assert await maxmemory_mib(lab) == 64
        async with get_client() as client:
            state = (await client.read_flow_run(run.id)).state
        assert state is not None
        assert (state.name, state.is_final()) == ("Escalated", True)
        await page.goto(f"{prefect_server.ui_url}/v2/runs/flow-run/{run.id}")
        await page.get_by_text("Escalated").first.wait_for(timeout=SEEN_MILLISECONDS)
    finally:
        await give_up(opened, fix)
        await empty(lab)


async def test_a_waiting_run_survives_worker_and_server(
    opened: Live, lab: LabDescription, worker: Worker, restart_server: Callable[[], Awaitable[None]]
) -> None:
    fix = await ask(opened, lab)
    try:
        run = await waiting_run(opened, fix.id)
        worker.end()
        await restart_server()
        worker.start()
        async with get_client() as client:
            await client.resume_flow_run(run.id, run_input={"answer": "approve", "comment": "go on", "step_1": {"mebibytes": 90}})
        record = await closed(opened, fix.id)
        assert record.verdict is Verdict.COMPLETED, record.message
        assert record.attempts[0].comment == "approved by a person: go on"
        assert await maxmemory_mib(lab) == 90
    finally:
        await give_up(opened, fix)
        await empty(lab)
