"""Every fault of Nginx on the whole lab, without flows: injected, shown by the probe, planned by rule, authorised, healed, taken back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
import yaml

from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory, Kind, Resource
from compose import inventory as lab_file
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.clients.nginx import NginxClient
from tasks.clients.polling import poll
from tasks.connecting import open_client
from tasks.core.declare import Ending
from tasks.core.detection import open_incident
from tasks.core.models import Context, Health, Observation, Step
from tasks.core.plans import parse_args
from tasks.core.policy import Action, Standing, authorise
from tasks.core.verdicts import observe
from tasks.planners.runbooks import RunbookPlanner
from tasks.scenarios.stage import ShopLoads, Stage

CATALOG = load_catalog()
PATIENCE_SECONDS = 30
REMEDY = {
    "nginx_connection_overload": "nginx_scale_connections",
    "nginx_small_limit": "nginx_scale_connections",
    "nginx_invalid_configuration": "nginx_revert_config",
    "nginx_wrong_upstream": "nginx_set_upstream",
    "nginx_stale_upstream": "nginx_reload",
    "nginx_expired_certificate": "nginx_install_certificate",
    "nginx_short_timeout": "nginx_revert_config",
    "nginx_unreadable_files": "nginx_restore_mode",
}
UNHEALED = {"nginx_invalid_configuration", "nginx_expired_certificate", "nginx_unreadable_files"}
"""Of which every run of the tests looks at what is left when nobody heals."""
QUIET = ("nginx_short_peak", "nginx_traffic_swings")


@dataclass
class Theatre:
    """The lab's Nginx with a stage."""

    inventory: Inventory
    resource: Resource
    client: NginxClient
    stage: Stage

    async def wait_for(self, symptoms: frozenset[str]) -> Observation:
        """The first observation with one of these symptoms; a healthy one where there are none."""

        async def shown() -> Observation | None:
            seen = await self.stage.observe()
            found = {finding.symptom for finding in seen.findings}
            return seen if (found & symptoms if symptoms else not found) else None

        seen = await poll(shown, seconds=PATIENCE_SECONDS, every_seconds=0.1)
        assert seen is not None, f"not seen: {sorted(symptoms) or 'healthy'}; last: {await self.stage.observe()}"
        return seen

    async def remediate(self, observation: Observation) -> list[str]:
        """Plan by rule, authorise and act until it is well; the tools that ran."""
        incident = open_incident(self.inventory.name, observation, observation.taken_at)
        context = Context(incident=incident, resource=self.resource, observation=observation)
        plan = await RunbookPlanner(CATALOG, self.inventory.rules).plan(context)
        assert plan.steps, plan.diagnosis
        for step in plan.steps:
            tool = CATALOG.tools[step.tool]
            ruling = authorise(
                step,
                tool,
                tools=CATALOG.tools,
                incident=incident,
                resource=self.resource,
                observation=observation,
                rules=self.inventory.rules,
                standing=Standing(now=observation.taken_at),
            )
            assert ruling.action is Action.ALLOW, ruling.reason
            change = await tool.function(self.client, parse_args(tool, step))
            assert change.before != change.after
        return [step.tool for step in plan.steps]


@asynccontextmanager
async def theatre(lab: LabDescription) -> AsyncIterator[Theatre]:
    inventory = parse_inventory(yaml.safe_dump(lab_file.inventory(lab)), lab_file.environment(lab)).inventory
    resource = inventory.resource("shop-web")
    client = open_client(resource, {})
    assert isinstance(client, NginxClient)
    probe = CATALOG.probes[Kind.NGINX]

    async def look() -> Observation:
        reading = await probe.measure(client, resource)
        return observe(resource, reading, probe.judge(reading, resource), taken_at=datetime.now(UTC), seconds=0)

    async with httpx.AsyncClient(base_url=lab.app.url, trust_env=False) as shop:
        stage = Stage(
            resource=resource,
            inventory=inventory,
            loads=ShopLoads(shop),
            observe=look,
            open_client=lambda _resource: client,
            logins={},
            past_fix=lambda _message: pytest.fail("no fault of Nginx needs a past fix"),
        )
        yield Theatre(inventory, resource, client, stage)
    await client.close()


@pytest.fixture
async def stage_of(lab: LabDescription) -> AsyncIterator[Theatre]:
    """The session's lab; it is left as it was found, which is asserted."""
    async with theatre(lab) as found:
        await found.wait_for(frozenset())
        files = [lab.web.config_path, lab.web.tls / "shop.crt", lab.web.tls / "shop.key"]
        before = [file.read_bytes() for file in files], (lab.web.web_root / "static").stat().st_mode
        yield found
        assert (await found.wait_for(frozenset())).health is Health.HEALTHY
        assert ([file.read_bytes() for file in files], (lab.web.web_root / "static").stat().st_mode) == before


def test_every_fault_has_a_remedy_here() -> None:
    names = {one.name for one in CATALOG.scenarios.values() if one.function.__module__.startswith("tasks.scenarios.nginx")}
    assert names == {*REMEDY, *QUIET}


@pytest.mark.parametrize("name", REMEDY)
async def test_a_fault_shows_and_is_healed_and_taken_back(stage_of: Theatre, name: str) -> None:
    declared = CATALOG.scenarios[name]
    assert declared.expects is Ending.HEALED
    generator = declared.function(stage_of.stage)
    try:
        await anext(generator)
        used = await stage_of.remediate(await stage_of.wait_for(declared.symptoms))
        assert used == [REMEDY[name]]
        assert not declared.forbidden_tools & set(used)
        await stage_of.wait_for(frozenset())
        await anext(generator, None)  # its own check
    finally:
        await generator.aclose()
        for call in stage_of.resource.baseline:
            step = Step(tool=call.tool, target=stage_of.resource.name, args=call.args, why="as before")
            await CATALOG.tools[step.tool].function(stage_of.client, parse_args(CATALOG.tools[step.tool], step))


@pytest.mark.parametrize("name", [name if name in UNHEALED else pytest.param(name, marks=pytest.mark.slow) for name in REMEDY])
async def test_a_fault_that_nobody_heals_is_taken_back(stage_of: Theatre, name: str) -> None:
    declared = CATALOG.scenarios[name]
    generator = declared.function(stage_of.stage)
    try:
        await anext(generator)
        await stage_of.wait_for(declared.symptoms)
    finally:
        await generator.aclose()


@pytest.mark.parametrize("name", QUIET)
async def test_where_nothing_is_wrong_nothing_shows_for_long(stage_of: Theatre, name: str) -> None:
    generator = CATALOG.scenarios[name].function(stage_of.stage)
    try:
        await anext(generator)
        for _ in range(5):
            assert (await stage_of.stage.observe()).health is Health.HEALTHY
    finally:
        await generator.aclose()
