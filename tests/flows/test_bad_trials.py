"""A trial from which nothing can be concluded fails loudly: no injection, no symptom, no restoration, no healing."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable
from types import MappingProxyType
from typing import Any

import pytest
from prefect.client.schemas.objects import State

import flows.scenario
import tasks.trying
from blocks.schema import Kind
from compose.description import LabDescription
from flows.scenario import scenario
from tasks.catalog import load_catalog
from tasks.clients.runtime import SupervisedProcess
from tasks.connecting import Live
from tasks.core.declare import Ending, Scenario
from tasks.core.scoring import Mistake
from tasks.evidence import surroundings
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed
from tests.flows.cache_fault import connect, empty, fill

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]
Fault = Callable[[Stage], AsyncGenerator[None]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, opened: Live) -> Callable[..., Any]:
    """`await tried(generator)` runs the scenario flow with a fault of the test's own; waits are cut short."""
    monkeypatch.setattr(flows.scenario, "STEADY_SECONDS", 4.0)
    monkeypatch.setattr(tasks.trying, "SHOW_SECONDS", 1.0)

    async def run(function: Fault, expects: Ending = Ending.HEALED) -> State[Any]:
        declared = Scenario("trial", "Trial", "Try.", Kind.REDIS, frozenset({"memory_high", "write_refused"}), function, expects)
        catalog = load_catalog()
        scenarios = MappingProxyType({**catalog.scenarios, "trial": declared})
        monkeypatch.setattr(flows.scenario, "load_catalog", lambda: dataclasses.replace(catalog, scenarios=scenarios))
        state: State[Any] = await scenario.with_options(validate_parameters=False)("trial", sustain_seconds=0, return_state=True)
        return state

    return run


async def test_an_injector_that_fails_fails_the_trial(tried: Callable[..., Any]) -> None:
    async def broken(stage: Stage) -> AsyncGenerator[None]:
        if stage.resource.name == "shop-cache":
            raise InjectionFailedError("the shop does not answer")
        yield

    state = await tried(broken)
    assert state.is_failed()
    assert "the shop does not answer" in state.message


async def test_a_symptom_that_does_not_appear_fails_the_trial(tried: Callable[..., Any]) -> None:
    async def idle(_stage: Stage) -> AsyncGenerator[None]:
        yield

    state = await tried(idle)
    assert state.is_failed()
    assert "trial: none of ['memory_high', 'write_refused'] appeared" in state.message


async def test_a_fault_that_is_not_taken_back_fails_the_trial(tried: Callable[..., Any], lab: LabDescription) -> None:
    async def lasting(stage: Stage) -> AsyncGenerator[None]:
        await fill(lab, 96)
        try:
            yield
        finally:
            await empty(lab)
            # No rule knows what to do about a service that is silent.
            await stage.runtime("shop-app").signal("SIGSTOP")

    try:
        state = await tried(lasting)
    finally:
        await SupervisedProcess(str(lab.control), "app").signal("SIGCONT")
    assert state.is_failed()
    assert "not steady after 4 s" in state.message


async def test_an_incident_of_just_before_the_fault_fails_the_trial(
    tried: Callable[..., Any], lab: LabDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    async def disturbed(around: Live, names: frozenset[str]) -> Any:
        nonlocal looked
        looked += 1
        if looked == 1:
            await fill(lab, 96)
            deadline = time.monotonic() + 20
            while not await around.records.open_fixes("lab"):
                assert time.monotonic() < deadline, "the monitor opens an incident"
                await asyncio.sleep(0.05)
        return await surroundings(around, names)

    async def filled(_stage: Stage) -> AsyncGenerator[None]:
        try:
            await fill(lab, 96)
            yield
        finally:
            await empty(lab)

    monkeypatch.setattr(flows.scenario, "surroundings", disturbed)
    state = await tried(filled)
    assert state.is_failed()
    assert "shop-cache had an incident before the fault: memory at" in state.message


async def test_a_check_that_finds_it_unhealed_fails_the_trial(tried: Callable[..., Any], lab: LabDescription) -> None:
    async def checked(_stage: Stage) -> AsyncGenerator[None]:
        try:
            await fill(lab, 96)
            yield
            raise Unhealed("the page is gone")
        finally:
            await empty(lab)

    state = await tried(checked)
    assert state.is_failed()
    assert state.message == "the page is gone"


async def test_a_lost_cart_and_a_restarted_neighbour_are_seen_and_the_cart_is_put_back(
    tried: Callable[..., Any], lab: LabDescription
) -> None:
    lost: dict[Any, Any] = {}

    async def harmed(_stage: Stage) -> AsyncGenerator[None]:
        try:
            await fill(lab, 96)
            yield
            async with connect(lab) as redis:
                key = await anext(redis.scan_iter(match="cart:customer-*", count=1000))
                lost[key] = await redis.hgetall(key)
                await redis.delete(key)
            await SupervisedProcess(str(lab.control), "web").restart()
        finally:
            await empty(lab)

    state = await tried(harmed)
    result = await state.aresult(raise_on_failure=False)
    assert (result.outcome, result.data_unharmed) == ("healed", False)
    assert set(result.mistakes) == {Mistake.DATA, Mistake.NEIGHBOUR}
    assert any("customers' carts" in problem for problem in result.problems)
    async with connect(lab) as redis:
        for key, lines in lost.items():
            assert await redis.hgetall(key) == lines
    assert lost
