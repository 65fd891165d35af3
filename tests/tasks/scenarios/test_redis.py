"""Every fault of Redis on a real server, without flows: injected, shown by the probe, planned by rule, authorised, healed, taken back."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis.asyncio import Redis

from blocks.credentials import Login
from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory, Kind, Resource
from compose import inventory as lab_file
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tasks.clients.polling import poll
from tasks.clients.redis_aof import last_increment
from tasks.clients.redis_server import RedisClient
from tasks.connecting import open_client
from tasks.core.declare import Ending, NoArgs, Scenario
from tasks.core.detection import open_incident
from tasks.core.errors import EvenkeelError, NotApplicable, ProbeBroken, ToolFailed
from tasks.core.models import Attempt, Change, Context, Decision, Health, Observation, Outcome, OutcomeStatus, Plan
from tasks.core.plans import parse_args
from tasks.core.policy import Action, Standing, authorise, tried_in
from tasks.core.redis_config import settings_of
from tasks.core.verdicts import observe, unknown
from tasks.execution import STATUS_OF_ERROR
from tasks.planners.runbooks import RunbookPlanner
from tasks.scenarios.stage import ShopLoads, Stage

CATALOG = load_catalog()
PATIENCE_SECONDS = 20
ATTEMPTS = 3
REMEDY: dict[str, list[str]] = {
    "redis_out_of_memory": ["redis_set_maxmemory"],
    "redis_clients_exhausted": ["redis_kill_clients"],
    "redis_maxclients_lowered": ["redis_config_restore"],
    "redis_blocking_script": ["redis_script_kill"],
    "redis_script_that_wrote": ["redis_script_kill"],  # refused by the server
    "redis_unwritable_dir": ["redis_config_restore"],
    "redis_accidental_replica": ["redis_promote"],
    "redis_password_changed": ["redis_realign_login"],
    "redis_password_rotated": ["redis_realign_login"],  # refused by the tool
    "redis_monitor_locked_out": [],
    "redis_down_behind_the_shop": ["redis_restart"],
    "redis_aof_cut_short": [],  # a person is asked
}
"""Fault -> the tools that rules try for it. Those that the shop's loads or untrusted text inject are tried through the scenario flow."""
FAULTS = [CATALOG.scenarios[name] for name in REMEDY]


@dataclass
class Theatre:
    """A lab's Redis with a stage, and a remediation without Prefect."""

    inventory: Inventory
    resource: Resource
    client: RedisClient
    stage: Stage

    async def observe(self) -> Observation:
        """One observation, as the monitor makes it."""
        probe, now = CATALOG.probes[Kind.REDIS], datetime.now(UTC)
        try:
            reading = await probe.measure(self.client, self.resource)
        except ProbeBroken as error:
            return unknown(self.resource, str(error), taken_at=now, seconds=0)
        return observe(self.resource, reading, probe.judge(reading, self.resource), taken_at=now, seconds=0)

    async def wait_for(self, symptoms: frozenset[str]) -> Observation:
        """The first observation with one of these symptoms; with none where there are none."""

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
        context = Context(incident=incident, resource=self.resource, observation=observation)
        used: list[str] = []
        for _ in range(ATTEMPTS):
            plan = await planner.plan(context)
            if plan.decision is not Decision.ACT or not self._is_allowed(plan, context):
                return Ending.ESCALATED, used
            outcomes = [await self._run(plan, number) for number in range(len(plan.steps))]
            used += [step.tool for step in plan.steps]
            seen = await poll(self._well, seconds=5, every_seconds=0.1) if any(one.changed_something for one in outcomes) else None
            if seen is not None:
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


@pytest.fixture
async def theatre(fresh_cache: LabDescription) -> AsyncIterator[Theatre]:
    parsed = parse_inventory(yaml.safe_dump(lab_file.inventory(fresh_cache)), lab_file.environment(fresh_cache))
    inventory, resource = parsed.inventory, parsed.inventory.resource("shop-cache")
    logins = {purpose: Login.model_validate(fresh_cache.cache.logins[purpose].model_dump()) for purpose in ("monitor", "application")}
    async with AsyncExitStack() as stack, httpx.AsyncClient(trust_env=False) as shop:

        def open_one(named: Resource) -> Any:
            client = open_client(named, logins)
            stack.push_async_callback(client.close)
            return client

        client = open_one(resource)

        async def look() -> Observation:
            return await made.observe()

        keys = {(resource.name, purpose): (one.username, one.password.get_secret_value()) for purpose, one in logins.items()}
        stage = Stage(
            resource=resource,
            inventory=inventory,
            loads=ShopLoads(shop),
            observe=look,
            open_client=lambda _: client,
            logins=keys,
            past_fix=lambda _: nullcontext(),
        )
        made = Theatre(inventory, resource, client, stage)
        yield made


async def fingerprint(redis: Redis) -> str:
    """Checksum of what the shop keeps there."""
    found = {key: sorted((await redis.hgetall(key)).items()) for key in [key async for key in redis.scan_iter("cart:*")]}
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def test_every_fault_of_these_modules_is_tried_here() -> None:
    modules = {"tasks.scenarios.redis_use", "tasks.scenarios.redis_settings", "tasks.scenarios.redis_process"}
    assert {name for name, fault in CATALOG.scenarios.items() if fault.function.__module__ in modules} == set(REMEDY)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
async def test_a_fault_is_seen_met_as_expected_and_taken_back(fault: Scenario, theatre: Theatre, fresh_cache: LabDescription) -> None:
    async with Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as second:
        for number in range(50):
            await second.hset(f"cart:customer-{number:03d}", mapping={"7": str(number)})
        data, settings = await fingerprint(second), await second.config_get("*")
    await theatre.wait_for(frozenset())
    generator = fault.function(theatre.stage)
    try:
        await anext(generator)
        ending, used = Ending.LEFT_ALONE, list[str]()
        if fault.symptoms:
            ending, used = await theatre.remediate(await theatre.wait_for(fault.symptoms))
        else:
            seen = [await theatre.observe() for _ in range(3)]
            assert not [one for one in seen if one.health.is_breach]
        assert ending is fault.expects
        assert used == REMEDY[fault.name]
        assert not fault.forbidden_tools & set(used)
        if ending is Ending.HEALED:
            with pytest.raises(StopAsyncIteration):
                await anext(generator)
    finally:
        await generator.aclose()

    await theatre.wait_for(frozenset())
    async with Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as second:
        assert await fingerprint(second) == data
        changed = {name for name, value in (await second.config_get("*")).items() if value != settings[name]}
        assert changed <= {"maxmemory"}, "a remedy may have raised it; the lab's baseline brings it back"
        await second.config_set("maxmemory", str(settings["maxmemory"]))


async def test_a_broken_append_only_file_is_repaired_once_a_person_agrees(theatre: Theatre) -> None:
    generator = CATALOG.scenarios["redis_aof_cut_short"].function(theatre.stage)
    repair = CATALOG.tools["redis_repair_aof"].function
    with pytest.raises(NotApplicable, match="the server runs"):
        await repair(theatre.client, NoArgs())
    try:
        await anext(generator)
        before = await theatre.wait_for(frozenset({"aof_broken"}))
        path = last_increment(settings_of(theatre.client.configuration()))
        (base,) = path.parent.glob("*.base.rdb")
        good, broken = base.read_bytes(), path.read_bytes()
        base.write_bytes(bytes(len(good)))
        with pytest.raises(ToolFailed, match="does not start with the repaired file either"):
            await repair(theatre.client, NoArgs())
        assert path.read_bytes() == broken
        base.write_bytes(good)
        change = await repair(theatre.client, NoArgs())
        assert (await theatre.observe()).health is Health.HEALTHY
        assert before.reading.values["broken_aof"] == path.name
        assert change.before["state"] == "exited"
        sizes = [int(str(side["aof_bytes"])) for side in (change.after, change.before)]
        assert 0 < sizes[0] < sizes[1] == Path(str(change.after["broken_file"])).stat().st_size
        assert await theatre.client.redis.exists("page:offers") == 0, "its write was cut in half"
    finally:
        await generator.aclose()
    await theatre.wait_for(frozenset())
