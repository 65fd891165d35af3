"""The examples of docs/rest.md, run as they stand there."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow

from blocks.schema import Kind
from compose.control_plane import ControlPlane
from compose.description import LabDescription
from flows.remediate import remediate
from flows.reset import reset
from flows.scenario import scenario
from tasks.catalog import load_catalog
from tasks.connecting import Live
from tests.flows.cache_fault import empty, fill, maxmemory_mib
from tests.flows.commands import output_of
from tests.flows.mcp_serving import ROOT, TOKEN

DOCUMENT = ROOT / "docs" / "rest.md"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Documented:
    """The document's commands, by their headings."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
        self.commands = {
            name: re.findall(r"```sh\n(.*?)```", body, re.DOTALL) for name, body in zip(sections[::2], sections[1::2], strict=True)
        }
        settings, self._started = self.commands.pop("Settings")
        assert set(re.findall(r"export (\w+)=", settings)) <= environment.keys()
        self._environment = environment
        self._directory = directory
        self.unused = set(self.commands)

    async def run(self, heading: str, expected_code: int = 0, **variables: str) -> str:
        """What the section's command prints."""
        (command,) = self.commands[heading]
        self.unused.discard(heading)
        return await self._executed("sh", "-c", f"{self._started}\n{command}", expected_code=expected_code, **variables)

    async def carried_out(self, heading: str, flow: Flow[Any, Any]) -> dict[str, Any]:
        """Run the command, which starts a run of a deployment, and that run, as a worker would; answers how it went."""
        run = FlowRun.model_validate_json(await self.run(heading))
        await cast(Awaitable[Any], run_flow(flow, run, return_type="state"))
        found: dict[str, Any] = json.loads(await self.run("How a run goes", RUN_ID=str(run.id)))
        return found

    async def _executed(self, *command: str, expected_code: int = 0, **variables: str) -> str:
        environment = {**self._environment, **variables, "HOME": str(self._directory)}
        found = await output_of(*command, directory=ROOT, environment=environment)
        assert found.code == expected_code, found.error[-2000:]
        return found.out


@pytest.fixture
def documented(served: str, opened: Live, lab: LabDescription, prefect_server: ControlPlane, tmp_path: Path) -> Documented:
    return Documented(
        {
            **prefect_server.environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RECORDS_URL": f"sqlite:///{lab.directory / 'records.db'}",
            "MCP_URL": served,
            "EVENKEEL_MCP_TOKEN": TOKEN,
        },
        tmp_path,
    )


async def test_every_documented_command_does_what_it_says(documented: Documented, opened: Live, lab: LabDescription) -> None:
    run = documented.run
    inventory, status, one, tools, failures, dry = await asyncio.gather(
        run("List the resources"),
        run("Status of all"),
        run("One resource"),
        run("List the tools"),
        run("List the failures"),
        documented.carried_out("Introduce a failure", scenario),
    )
    names = {resource.name for resource in opened.inventory.resources}
    assert {found["name"] for found in json.loads(json.loads(inventory)[0]["text"])["resources"]} == names
    assert all(f'"{name}"' in status.replace("\\", "") for name in names)
    (cache,) = json.loads(json.loads(one)[0]["text"])["resources"]
    assert (cache["resource"], cache["kind"], cache["health"]) == ("shop-cache", Kind.REDIS, "HEALTHY")
    assert {tool["name"] for tool in json.loads(tools)["tools"]} >= load_catalog().tools.keys()
    listed = json.loads(failures)["parameter_openapi_schema"]["properties"]["name"]["enum"]
    assert set(listed) == load_catalog().scenarios.keys()
    assert dry["state"]["type"] == "COMPLETED"
    assert "nothing is injected: on shop-cache" in dry["state"]["message"]

    await fill(lab, 96)
    try:
        fixed = await documented.carried_out("Trigger a fix", remediate)
    finally:
        await empty(lab)
    assert (fixed["state"]["name"], await maxmemory_mib(lab) > 64) == ("Completed", True)
    fix = json.loads(await run("List the fixes"))[0]
    told, exported, latest = await asyncio.gather(
        run("Get a fix", FIX_ID=fix["id"]),
        run("What a model was asked and said", FIX_ID=fix["id"]),
        run("The latest question of a resource"),
    )
    assert json.loads(told)["journal"][0]["step"]["tool"] == "redis_set_maxmemory"
    assert fix["id"] in exported
    assert "memory" in json.loads(latest)["data"]

    back = await documented.carried_out("Reset one", reset)
    assert (back["state"]["type"], await maxmemory_mib(lab)) == ("COMPLETED", 64)
    assert json.loads(await run("Delete a fix", FIX_ID=fix["id"])) == {"deleted": 1}
    await run("Get a fix", expected_code=2, FIX_ID=fix["id"])
    assert documented.unused == set()
