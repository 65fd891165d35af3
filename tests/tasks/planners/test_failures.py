"""Everything that can go wrong with a model: a runbook plans, in time, the plan says why, and no key is told."""

import asyncio
import logging
import math
import pickle
import socket
from typing import Any

import pytest

from blocks.gemini_settings import GeminiSettings
from compose.gemini_wire import Answer, Request, Script, blocked, in_turn, refusal, said, silent, structured
from tasks.core.models import Context, Plan, Usage
from tasks.planners.gemini_client import GeminiAccess, GeminiClient, ModelFailed, Session
from tests.tasks.planners.conftest import ACCOUNT, GOOD, KEY, LOGGER, Desk, OpenDesk, answer, step

QUICK = {"timeout_seconds": 0.2, "total_seconds": 0.6}
ENDLESS = {"hang", "slow trickle"}

# Name -> the script, a word of the note, and how many requests it takes.
FAILURES: dict[str, tuple[Script, str, int]] = {
    "prompt blocked": (in_turn(blocked("PROHIBITED_CONTENT")), "blocked: PROHIBITED_CONTENT", 1),
    "safety": (in_turn(silent("SAFETY")), "SAFETY", 1),
    "recitation": (in_turn(silent("RECITATION")), "RECITATION", 1),
    "thinking ate the tokens": (in_turn(silent("MAX_TOKENS", promptTokenCount=5, thoughtsTokenCount=8192)), "max_output_tokens", 1),
    "answer cut by MAX_TOKENS": (in_turn(said('{"decision": "act", "dia', "MAX_TOKENS")), "MAX_TOKENS", 1),
    "no candidates": (in_turn(Answer({"candidates": []})), "without candidates", 1),
    "stopped without content": (in_turn(silent("STOP")), "without content", 1),
    "empty text": (in_turn(said("")), "", 2),
    "truncated JSON": (in_turn(said('{"decision": "act", "dia')), "not JSON", 2),
    "malformed JSON": (in_turn(said("{'decision': 'act'}")), "not JSON", 2),
    "prose": (in_turn(said("I would raise maxmemory.")), "not JSON", 2),
    "{} as the answer": (in_turn(said("{}")), "decision: Field required", 2),
    "[1] as the answer": (in_turn(said("[1]")), "should be an object", 2),
    "null as the answer": (in_turn(said("null")), "should be an object", 2),
    "NaN in it": (in_turn(said('{"decision": "act", "diagnosis": "x", "steps": [{"tool": "t", "args": {"a": NaN}}]}')), "not JSON", 2),
    "{} with status 200": (in_turn(Answer({})), "without candidates", 1),
    "[1] with status 200": (in_turn(Answer([1])), "", 1),
    "empty body": (in_turn(Answer(b"")), "", 1),
    "HTML with status 200": (in_turn(Answer(b"<html>sign in</html>", headers={"content-type": "text/html"})), "not one of the API's", 1),
    "JSON cut in the body": (in_turn(Answer(b'{"candidates": [{"content"')), "not one of the API's", 1),
    "unknown tool": (in_turn(answer(steps=[step("redis_delete_everything")])), "not among", 2),
    "tool of another kind": (in_turn(answer(steps=[step("postgres_restart", args={})])), "not among", 2),
    "wrong type": (in_turn(answer(steps=[step(args={"mebibytes": "96"})])), "valid number", 2),
    "out of range": (in_turn(answer(steps=[step(args={"mebibytes": 10**9})])), "less than or equal", 2),
    "a boolean for a number": (in_turn(answer(steps=[step("redis_evict_to", args={"percent": True})])), "valid integer", 2),
    "argument missing": (in_turn(answer(steps=[step(args={})])), "Field required", 2),
    "argument too many": (in_turn(answer(steps=[step("redis_flush", args={"force": True})])), "not permitted", 2),
    "another resource's name": (in_turn(answer(steps=[step(target="shop-db")])), "is not the incident's resource", 2),
    "too many steps": (in_turn(answer(steps=[step()] * 9)), "at most 4", 2),
    "act without steps": (in_turn(answer(steps=[])), "at least one step", 2),
    "steps without act": (in_turn(answer(decision="escalate")), "at least one step", 2),
    "unknown decision": (in_turn(answer(decision="destroy")), "decision", 2),
    "steps that are no list": (in_turn(answer(steps="redis_flush")), "steps", 2),
    "a planner of its own": (in_turn(answer(planner="runbook", notes=["all is well"])), "planner: Extra inputs", 2),
    "an endless text": (in_turn(answer(reasoning="a" * 100_000)), "at most 4000", 2),
    "400": (in_turn(refusal(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")), "400 INVALID_ARGUMENT", 2),
    "401": (in_turn(refusal(401, "UNAUTHENTICATED", f"Expected OAuth 2 access token, got {KEY}")), "401 UNAUTHENTICATED", 1),
    "403": (in_turn(refusal(403, "PERMISSION_DENIED", "denied")), "403 PERMISSION_DENIED", 1),
    "404": (in_turn(refusal(404, "NOT_FOUND", "models/x is not found")), "404 NOT_FOUND", 1),
    "429 with a long RetryInfo": (in_turn(refusal(429, "RESOURCE_EXHAUSTED", "quota", 3600)), "asks to wait 3600 s", 1),
    "500": (in_turn(refusal(500, "INTERNAL", "oops")), "500 INTERNAL", 1),
    "503": (in_turn(refusal(503, "UNAVAILABLE", "overloaded")), "503 UNAVAILABLE", 1),
    "503 as HTML": (in_turn(Answer(b"<html>down</html>", status=503)), "503", 1),
    "hang": (in_turn(Answer({}, wait_seconds=math.inf)), "no answer within 0.2 s", 1),
    "slow trickle": (in_turn(Answer({"candidates": []}, byte_every_seconds=0.02)), "no answer within 0.2 s", 1),
    "reset before the answer": (in_turn(Answer({}, reset_after_bytes=0)), "connection failed", 1),
    "reset within the answer": (in_turn(Answer(GOOD, reset_after_bytes=120)), "connection failed", 1),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_runbook_takes_over(desk: OpenDesk, context: Context, name: str, caplog: pytest.LogCaptureFixture) -> None:
    script, word, requests = FAILURES[name]
    async with desk(script, **(QUICK if name in ENDLESS else {})) as opened:
        with caplog.at_level(logging.INFO):
            plan = await opened.plan(context)
        assert opened.seconds < 1.5
        assert (await opened.records.circuit(ACCOUNT)).failures == 1
        asked = len(opened.server.requests)
    assert plan.planner.startswith("runbook:")
    assert plan.steps
    assert plan.notes[-1].startswith("gemini: ")
    assert plan.notes[-1].endswith("-> runbook")
    assert word in "\n".join(plan.notes)
    assert asked == plan.usage.requests >= requests
    assert KEY not in plan.model_dump_json()
    logged = [record for record in caplog.records if record.name == LOGGER.name]
    assert not [record for record in logged if record.exc_info], "no failure of a model is a defect of ours"
    assert KEY not in "".join(record.getMessage() for record in caplog.records)


async def test_passing_trouble_that_stays_is_given_up_after_four_times(desk: OpenDesk, context: Context) -> None:
    async with desk(in_turn(refusal(503, "UNAVAILABLE", "later")), total_seconds=5) as opened:
        plan = await opened.plan(context)
        assert opened.seconds < 4.5
    assert plan.usage.requests == 4
    assert "503 UNAVAILABLE later, 4 times -> runbook" in plan.notes[-1]


async def test_nobody_listens(desk: OpenDesk, context: Context) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    async with desk(in_turn(answer()), base_url=address, **QUICK) as opened:
        plan = await opened.plan(context)
        assert opened.seconds < 1
    assert plan.planner.startswith("runbook:")
    assert "ConnectError" in plan.notes[-1]


async def test_an_invalid_key_is_not_asked_about_twice(desk: OpenDesk, context: Context) -> None:
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    error = {"code": 400, "message": f"API key not valid: {KEY}", "status": "INVALID_ARGUMENT", "details": [reason]}
    async with desk(in_turn(Answer({"error": error}, status=400))) as opened:
        plan = await opened.plan(context)
    assert plan.usage.requests == 1
    assert plan.notes == ("gemini: 400 the API key is not valid -> runbook",)


async def test_a_thought_without_an_answer_is_no_answer(desk: OpenDesk, context: Context) -> None:
    thought = {"candidates": [{"content": {"role": "model", "parts": [{"text": "hm", "thought": True}]}, "finishReason": "STOP"}]}
    async with desk(in_turn(Answer(thought))) as opened:
        plan = await opened.plan(context)
    assert "not JSON" in plan.notes[-1]


async def test_the_deadline_holds_over_all_requests_together(desk: OpenDesk, context: Context) -> None:
    slow_and_bad = Answer(said("{}").body, wait_seconds=0.4)
    async with desk(in_turn(slow_and_bad), timeout_seconds=1, total_seconds=0.6) as opened:
        plan = await opened.plan(context)
        assert opened.seconds < 1
    assert plan.notes[-1] == "gemini: no plan within 0.6 s -> runbook"
    assert plan.usage.requests == 2


async def test_what_a_failure_used_is_kept(desk: OpenDesk, context: Context) -> None:
    async with desk(in_turn(structured({}, promptTokenCount=1000, candidatesTokenCount=10))) as opened:
        plan = await opened.plan(context)
        total = await opened.records.use_of(ACCOUNT, context.incident.opened_at.date())
    assert (plan.usage.requests, plan.usage.input_tokens, plan.usage.output_tokens) == (2, 2000, 20)
    assert (total.requests, total.input_tokens, total.output_tokens) == (2, 2000, 20)


async def test_a_defect_of_ours_is_logged_with_its_traceback_and_still_a_runbook_plans(
    desk: OpenDesk, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(in_turn(answer())) as opened:

        def broken() -> Any:
            raise ZeroDivisionError("a defect")

        opened.open_model = broken
        plan = await opened.plan(context)
    assert plan.planner.startswith("runbook:")
    assert plan.notes[-1] == "gemini: ZeroDivisionError while planning; see the log -> runbook"
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert logged.exc_info is not None
    assert logged.exc_info[0] is ZeroDivisionError


async def test_cancelling_cancels_and_counts_what_was_used(desk: OpenDesk, context: Context) -> None:
    asked = asyncio.Event()

    def hang(_request: Request) -> Answer:
        asked.set()
        return Answer({}, wait_seconds=math.inf)

    async with desk(hang) as opened:
        planning = asyncio.create_task(opened.plan(context))
        await asyncio.wait_for(asked.wait(), 5)
        planning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await planning
        assert (await opened.records.use_of(ACCOUNT, context.incident.opened_at.date())).requests == 1
        assert (await opened.records.circuit(ACCOUNT)).failures == 0


async def _plans(opened: Desk, context: Context, count: int) -> list[Plan]:
    return [await opened.plan(context) for _ in range(count)]


async def test_after_three_failures_it_is_left_alone(desk: OpenDesk, context: Context) -> None:
    async with desk(in_turn(silent("SAFETY"))) as opened:
        plans = await _plans(opened, context, 4)
        assert len(opened.server.requests) == 3
    assert "not asked again until" in plans[-1].notes[-1]
    assert plans[-1].usage == Usage()


async def test_when_the_pause_is_over_one_tries_and_success_closes_the_circuit(
    desk: OpenDesk, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.circuit.FIRST_PAUSE", type(context.incident.opened_at - context.incident.opened_at)(0))
    async with desk(in_turn(silent("SAFETY"), silent("SAFETY"), silent("SAFETY"), Answer(answer().body, wait_seconds=0.2))) as opened:
        await _plans(opened, context, 3)
        plans = await asyncio.gather(*(opened.plan(context) for _ in range(4)))
        assert len(opened.server.requests) == 4
        assert (await opened.records.circuit(ACCOUNT)).is_closed()
        again = await opened.plan(context)
    assert sorted(plan.planner.partition(":")[0] for plan in plans) == ["gemini", "runbook", "runbook", "runbook"]
    assert sum("another process is trying it" in note or "not asked again" in note for plan in plans for note in plan.notes) == 3
    assert again.planner.startswith("gemini:")


@pytest.mark.parametrize(("budget", "word"), [({"tokens_per_day": 4000}, "4300 of 4000 tokens"), ({"dollars_per_day": 0.001}, "dollars")])
async def test_a_used_up_budget_leaves_it_to_the_runbooks(desk: OpenDesk, context: Context, budget: dict[str, Any], word: str) -> None:
    async with desk(in_turn(structured(GOOD, promptTokenCount=4000, candidatesTokenCount=300)), **budget) as opened:
        plans = await _plans(opened, context, 2)
        assert len(opened.server.requests) == 1
        assert (await opened.records.circuit(ACCOUNT)).is_closed()
    assert plans[0].planner.startswith("gemini:")
    assert plans[1].planner.startswith("runbook:")
    assert "budget is used up" in plans[1].notes[-1]
    assert word in plans[1].notes[-1]


async def test_without_records_nothing_is_spent(desk: OpenDesk, context: Context) -> None:
    async with desk(in_turn(answer())) as opened:
        await opened.records.close()
        async with opened.records._database.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE evenkeel_planners")
        plan = await opened.plan(context)
        assert not opened.server.requests
    assert plan.planner.startswith("runbook:")
    assert "records:" in plan.notes[-1]


async def test_an_error_carries_neither_key_nor_the_sdks_error(desk: OpenDesk) -> None:
    from google.genai import types

    async with desk(in_turn(refusal(401, "UNAUTHENTICATED", f"bad key {KEY}"))) as opened:
        client = GeminiClient(GeminiSettings(base_url=opened.server.url), GeminiAccess(api_key=KEY))
        contents = [types.Content(role="user", parts=[types.Part(text="x")])]
        with pytest.raises(ModelFailed) as caught:
            await client.generate(Session(asyncio.get_running_loop().time() + 5), contents, types.GenerateContentConfig())
        await client.close()
    error = caught.value
    assert error.__cause__ is error.__context__ is None
    assert KEY not in repr(error)
    assert KEY.encode() not in pickle.dumps(error)
    assert KEY not in repr(GeminiAccess(api_key=KEY))
