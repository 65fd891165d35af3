"""The Prefect UI in a real browser: what a person sees of a remediation. Screenshots go to build/screenshots."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from compose.control_plane import ControlPlane
from flows.scenario import scenario
from tasks.catalog import load_catalog
from tasks.connecting import Live

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parent.parent.parent / "build" / "screenshots"
SEEN_MILLISECONDS = 20_000

pytestmark = [
    pytest.mark.ui,
    pytest.mark.timeout(120),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install Debian's package chromium"),
]


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        )
        opened = await browser.new_page(viewport={"width": 1440, "height": 1000})
        # Nothing outside this machine is looked up: avatars, analytics and logos are not what is tested.
        await opened.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
        yield opened
        await browser.close()


async def test_a_person_sees_the_remediation_the_status_and_the_form(opened: Live, prefect_server: ControlPlane, page: Page) -> None:
    since = datetime.now(UTC)
    await scenario("redis_memory_pressure")
    record = (await opened.records.history(inventory="lab", since=since, limit=1))[0]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    ui = f"{prefect_server.ui_url}/v2"

    await page.goto(f"{ui}/runs/flow-run/{record.flow_run_id}")
    await page.get_by_text("Heal shop-cache").first.wait_for(timeout=SEEN_MILLISECONDS)
    await page.get_by_text("NoActionNeeded").or_(page.get_by_text("Completed")).first.wait_for(timeout=SEEN_MILLISECONDS)
    await page.get_by_role("tab", name="Task Runs").click()
    await page.get_by_text("redis_set_maxmemory on shop-cache").first.wait_for(timeout=SEEN_MILLISECONDS)
    await page.screenshot(path=SCREENSHOTS / "remediation.png")

    await page.goto(f"{ui}/artifacts/key/status-lab")
    await page.get_by_text("resources are healthy").first.wait_for(timeout=SEEN_MILLISECONDS)
    async with get_client() as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["status-lab"]))
        latest = (await client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC, limit=1))[0]
    await page.goto(f"{ui}/artifacts/artifact/{latest.id}")
    await page.get_by_text("shop-cache").first.wait_for(timeout=SEEN_MILLISECONDS)
    await page.screenshot(path=SCREENSHOTS / "status.png")

    async with get_client() as client:
        deployment = await client.read_deployment_by_name("scenario/by-hand")
    await page.goto(f"{ui}/deployments/deployment/{deployment.id}/run")
    await page.get_by_text("The fault").first.wait_for(timeout=SEEN_MILLISECONDS)
    # What the form offers is the deployment's own schema.
    assert deployment.parameter_openapi_schema is not None
    assert deployment.parameter_openapi_schema["properties"]["name"]["enum"] == sorted(load_catalog().scenarios)
    await page.screenshot(path=SCREENSHOTS / "scenario-form.png")
