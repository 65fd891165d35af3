"""A stage for scenarios without Prefect: a lab's resource, its probe, and a remediation by rule that goes through the policy."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from blocks.credentials import Login
from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory, Resource
from compose import inventory as lab_file
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.clients.polling import poll
from tasks.connecting import open_client
from tasks.core.declare import Ending, Scenario
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.core.models import Attempt, Change, Context, Decision, Health, Observation, Outcome, OutcomeStatus, Plan
from tasks.core.plans import parse_args
from tasks.core.policy import Action, Standing, authorise, tried_in
from tasks.core.verdicts import observe, unknown
from tasks.execution import STATUS_OF_ERROR
from tasks.planners.runbooks import RunbookPlanner
from tasks.scenarios.stage import ShopLoads, Stage

CATALOG = load_catalog()
PATIENCE_SECONDS = 30
LOOK_EVERY_SECONDS = 0.5
ATTEMPTS = 3


@dataclass
class Theatre:
    """One resource with its stage."""

    inventory: Inventory
    resource: Resource
    client: Any
    loads: ShopLoads
    logins: Mapping[tuple[str, str], tuple[str, str]] = field(repr=False)
    """(resource, purpose) -> user and password."""

    @property
    def stage(self) -> Stage:
        """What scenarios are given."""
        return Stage(
            resource=self.resource,
            inventory=self.inventory,
            loads=self.loads,
            observe=self.observe,
            open_client=lambda _: self.client,
            logins=self.logins,
            past_fix=lambda _: pytest.fail("no fault that is tried here needs a past fix"),
        )

    async def perform(self, fault: Scenario, *, quiet_seconds: float = 1) -> list[str]:
        """Inject, wait for the symptom, remediate, check, take back, all as the fault declares it; the tools that ran.

        A fault without symptoms must show none for `quiet_seconds`.
        """
        await self.wait_for(frozenset())
        generator = fault.function(self.stage)
        try:
            await anext(generator)
            ending, used = Ending.LEFT_ALONE, list[str]()
            if fault.symptoms:
                ending, used = await self.remediate(await self.wait_for(fault.symptoms))
            else:
                await self._stays_quiet(quiet_seconds)
            assert ending is fault.expects
            assert not fault.forbidden_tools & set(used)
            if ending is not Ending.ESCALATED:
                with pytest.raises(StopAsyncIteration):  # the fault's own check
                    await anext(generator)
        finally:
            await generator.aclose()
        await self.wait_for(frozenset())
        return used

    async def _stays_quiet(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            seen = await self.observe()
            assert not seen.findings
            if time.monotonic() >= end:
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def observe(self) -> Observation:
        """One observation, as the monitor makes it."""
        probe, now = CATALOG.probes[self.resource.kind], datetime.now(UTC)
        try:
            reading = await probe.measure(self.client, self.resource)
        except ProbeBroken as error:
            return unknown(self.resource, str(error), taken_at=now, seconds=0)
        return observe(self.resource, reading, probe.judge(reading, self.resource), taken_at=now, seconds=0)

    async def wait_for(self, symptoms: frozenset[str]) -> Observation:
        """The first observation with one of these symptoms; a healthy one where there are none."""

        async def shown() -> Observation | None:
            seen = await self.observe()
            found = {finding.symptom for finding in seen.findings}
            return seen if (found & symptoms if symptoms else seen.health is Health.HEALTHY) else None

        seen = await poll(shown, seconds=PATIENCE_SECONDS, every_seconds=0.1)
        assert seen is not None, f"not seen: {sorted(symptoms) or 'healthy'}; last: {await self.observe()}"
        return seen

    async def remediate(self, observation: Observation) -> tuple[Ending, list[str]]:
        """Plan by rule, authorise, act and measure, up to three times; how it ended, and the tools that ran."""
        planner = RunbookPlanner(CATALOG, self.inventory.rules)
        incident = open_incident(self.inventory.name, observation, observation.taken_at)
        context = Context(incident=incident, resource=self.resource, observation=await self.observe())
        used: list[str] = []
        for _ in range(ATTEMPTS):
            plan = await planner.plan(context)
            if plan.decision is Decision.NOTHING:
                well = await poll(self._well, seconds=min(plan.patience_seconds, PATIENCE_SECONDS), every_seconds=0.1)
                return Ending.ESCALATED if well is None else Ending.LEFT_ALONE, used
            if plan.decision is not Decision.ACT or not self._is_allowed(plan, context):
                return Ending.ESCALATED, used
            outcomes = [await self._run(plan, number) for number in range(len(plan.steps))]
            used += [step.tool for step in plan.steps]
            changed = any(one.changed_something for one in outcomes)
            if changed and await poll(self._well, seconds=self.inventory.rules.recover_seconds, every_seconds=0.1) is not None:
                assert {one.status for one in outcomes} == {OutcomeStatus.DONE}
                return Ending.HEALED, used
            attempt = Attempt(plan=plan, outcomes=tuple(outcomes))
            context = context.model_copy(update={"attempts": (*context.attempts, attempt), "observation": await self.observe()})
        return Ending.ESCALATED, used

    async def _well(self) -> Observation | None:
        seen = await self.observe()
        return seen if seen.health is Health.HEALTHY else None

    def _is_allowed(self, plan: Plan, context: Context) -> bool:
        rulings = [
            authorise(
                step,
                CATALOG.tools[step.tool],
                tools=CATALOG.tools,
                incident=context.incident,
                resource=self.resource,
                observation=context.observation,
                rules=self.inventory.rules,
                standing=Standing(now=context.observation.taken_at, tried=tried_in(context.attempts)),
            )
            for step in plan.steps
        ]
        assert Action.DENY not in {ruling.action for ruling in rulings}, rulings
        return all(ruling.action is Action.ALLOW for ruling in rulings)

    async def _run(self, plan: Plan, number: int) -> Outcome:
        step = plan.steps[number]
        tool, change = CATALOG.tools[step.tool], None
        status, message = OutcomeStatus.DONE, ""
        try:
            change = await tool.function(self.client, parse_args(tool, step))
            assert isinstance(change, Change)
        except EvenkeelError as error:
            status, message = STATUS_OF_ERROR[type(error)], str(error)
        return Outcome(step=step, status=status, change=change, message=message, started_at=datetime.now(UTC))


@asynccontextmanager
async def theatre_of(lab: LabDescription, name: str) -> AsyncIterator[Theatre]:
    """The lab's resource of that name, as its inventory has it."""
    parsed = parse_inventory(yaml.safe_dump(lab_file.inventory(lab)), lab_file.environment(lab))
    inventory, resource = parsed.inventory, parsed.inventory.resource(name)
    logins = {key: Login.model_validate(one.model_dump()) for key, one in parsed.logins.items()}
    client = open_client(resource, {purpose: logins[resource.name, purpose] for purpose in resource.logins})
    keys = {key: (one.username, one.password.get_secret_value()) for key, one in logins.items()}
    async with httpx.AsyncClient(base_url=lab.app.url, trust_env=False) as shop:
        try:
            yield Theatre(inventory, resource, client, ShopLoads(shop), keys)
        finally:
            await client.close()
