"""A planner in the shadow, beside one that heals a real, full cache: recorded and shown, never executed, and no burden."""

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from pydantic import SecretStr

from blocks.gemini import GeminiBlock
from blocks.gemini_settings import GeminiSettings, Shadow
from compose.description import LabDescription
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, Request
from flows.remediate import remediate
from tasks.clients.polling import poll
from tasks.connecting import Live
from tasks.core.models import Usage, Verdict
from tasks.core.policy import Action
from tasks.core.replay import SavedIncident
from tests.flows.cache_fault import connect, empty, fill, maxmemory_mib
from tests.flows.test_replan import artifact
from tests.scripted_gemini import API_KEY, planned, secrets_of, step

pytestmark = pytest.mark.timeout(120)
ACTS, WATCHES = "gemini-acts", "gemini-watches"
LATE_SECONDS = 8.0
"""Longer than the other one needs to heal it, but on a machine that is very busy."""


@dataclass
class Healed:
    """What came of it."""

    state: State[Any]
    server: GeminiServer
    opened: Live

    async def saved(self) -> SavedIncident:
        (saved,) = await self.opened.records.saved_incidents(inventory="lab", limit=1)
        return saved

    async def task_runs(self) -> set[str]:
        """Names of the run's tasks, as Prefect has them."""
        async with get_client() as client:
            flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[self.state.state_details.flow_run_id]))
            return {run.name for run in await client.read_task_runs(flow_run_filter=flow_run)}

    async def used_today(self, account: str) -> Usage:
        return await self.opened.records.use_of(account, datetime.now(UTC).date())


@asynccontextmanager
async def healed(opened: Live, lab: LabDescription, answer: Answer, shadow: Mapping[str, Any], **settings: Any) -> AsyncIterator[Healed]:
    """The cache filled, and healed by a model that raises its limit, while another one answers with that in the shadow."""
    rules = opened.inventory.rules.model_copy(update={"settle_seconds": 0})
    opened.inventory = opened.inventory.model_copy(update={"rules": rules})
    await opened.records.planner_succeeded("gemini/lab/shadow")

    def script(request: Request) -> Answer:
        return answer if request.model == WATCHES else planned(step())

    async with GeminiServer(script) as server:
        given = GeminiSettings(model=ACTS, base_url=server.url, shadow=Shadow(model=WATCHES, **shadow), **settings)
        opened.gemini = GeminiBlock(settings=given, api_key=SecretStr(API_KEY))
        await fill(lab, 96)
        try:
            yield Healed(await remediate("shop-cache", return_state=True), server, opened)
        finally:
            await opened.give_up_background()
            await empty(lab)


async def test_what_the_shadow_would_do_is_ruled_on_recorded_and_shown_and_not_done(opened: Live, lab: LabDescription) -> None:
    today = datetime.now(UTC).date()
    acted_before, before = await opened.records.use_of("gemini/lab", today), await opened.records.use_of("gemini/lab/shadow", today)
    flush = planned(step("redis_flush", args={}), diagnosis="drop it all")
    async with connect(lab) as redis:
        await redis.set("cart:of-the-test", "kept")
        async with healed(opened, lab, flush, {"dollars_per_million_input_tokens": 100}) as found:
            await opened.drained()
            assert (found.state.name, await maxmemory_mib(lab)) == ("Completed", 100)
            assert await redis.get("cart:of-the-test") == b"kept"
            saved, runs = await found.saved(), await poll(lambda: shown_run(found), seconds=20, every_seconds=0.2)
        await redis.delete("cart:of-the-test")
    (asked,) = saved.planned
    assert saved.fix.verdict is Verdict.COMPLETED
    assert asked.acted.plan.planner == f"gemini:{ACTS}"
    assert asked.shadow is not None
    assert asked.shadow.answer is not None
    assert (asked.shadow.planner, asked.shadow.answer.word) == (f"gemini:{WATCHES}", Action.ASK)
    assert [one.tool for one in asked.shadow.answer.plan.steps] == ["redis_flush"]
    assert runs is not None, "no task run of the shadow"
    assert not [name for name in runs if "redis_flush" in name]
    # Paid for apart, by its own price: the fix and the acting planner's account know nothing of it.
    acted, watched = await found.used_today("gemini/lab"), await found.used_today("gemini/lab/shadow")
    assert saved.fix.attempts[0].plan.usage.requests == acted.requests - acted_before.requests == 1
    assert (watched.requests - before.requests, asked.shadow.usage.requests) == (1, 1)
    assert asked.shadow.usage.dollars > 10 * saved.fix.attempts[0].plan.usage.dollars
    shown = await artifact("shadow-shop-cache")
    for text in (f"gemini:{ACTS}", f"gemini:{WATCHES}", "redis_flush", "redis_set_maxmemory", "≠ different", "Nothing of it is executed"):
        assert text in shown["data"]
    # Both were told the same, and neither a secret.
    (one,), (other,) = ([r for r in found.server.requests if r.model == model] for model in (ACTS, WATCHES))
    assert one.text == other.text
    assert not [secret for secret in secrets_of(lab) if secret in other.whole + json.dumps(shown)]


async def shown_run(found: Healed) -> set[str] | None:
    """The names of the task runs, once that of the shadow has arrived: the server records them from events."""
    runs = await found.task_runs()
    return runs if "plan for shop-cache in the shadow" in runs else None


async def test_a_shadow_that_never_answers_delays_nothing(opened: Live, lab: LabDescription) -> None:
    async with healed(opened, lab, Answer(b"", wait_seconds=math.inf), {"total_seconds": 100}, timeout_seconds=100) as found:
        assert found.state.name == "Completed"
        # The fix is closed, its lock is free and its run has ended, while the shadow still waits.
        assert await opened.records.open_fixes("lab") == []
        assert len(opened._background) == 1
        assert await maxmemory_mib(lab) == 100
        assert await opened.records.shadows((await found.saved()).fix.id) == {}


@pytest.mark.slow
async def test_a_shadow_that_answers_when_the_run_is_over_is_still_ruled_on_and_shown(opened: Live, lab: LabDescription) -> None:
    late = replace(planned(step("redis_flush", args={}), diagnosis="drop it late"), wait_seconds=LATE_SECONDS)
    async with healed(opened, lab, late, {"total_seconds": 60}, timeout_seconds=60) as found:
        await opened.drained()
        (asked,) = (await found.saved()).planned
    assert asked.shadow is not None
    assert asked.shadow.answer is not None
    assert asked.shadow.answer.word is Action.ASK
    assert "drop it late" in (await artifact("shadow-shop-cache"))["data"]
    assert found.state.name == "Completed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(Answer(b"", wait_seconds=math.inf), "within", id="silent"),
        pytest.param(planned(step("docker_restart", "shop-db", {})), "docker_restart", id="another resource"),
    ],
)
async def test_a_shadow_that_fails_is_said_to_have_no_plan(opened: Live, lab: LabDescription, answer: Answer, why: str) -> None:
    async with healed(opened, lab, answer, {"total_seconds": 2}, timeout_seconds=0.3, acts=False) as found:
        await opened.drained()
        assert (found.state.name, await maxmemory_mib(lab)) == ("Completed", 96)
        (asked,) = (await found.saved()).planned
    # Runbooks act, and nobody but the shadow was asked.
    assert asked.acted.plan.planner == "runbook:redis_memory"
    assert {request.model for request in found.server.requests} == {WATCHES}
    assert asked.shadow is not None
    assert asked.shadow.answer is None
    assert why in asked.shadow.said
    assert asked.shadow.said
    assert (await artifact("shadow-shop-cache"))["data"].startswith("# shop-cache: ∅ no plan")
