"""Everything that can go wrong with a model, each through the whole flow with a real, full cache.

Whatever the model does, the cache ends healthy by a valid plan or a runbook, or a person is asked; it is never left worse than found.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from redis import Redis as SyncRedis

from blocks.documents import write
from blocks.gemini import save_gemini
from blocks.inventory import load_inventory, save_inventory
from blocks.records import load_records_url
from blocks.schema import Rules
from compose.control_plane import ControlPlane
from compose.description import LabDescription, free_ports
from compose.gemini_server import GeminiServer
from compose.gemini_wire import SIGNATURE, Answer, Request, Script, calling, in_turn, refusal, said
from flows.remediate import remediate
from flows.reset import reset
from tasks.connecting import live
from tasks.core.models import FixRecord, OutcomeStatus, Verdict
from tasks.planners.gemini_client import load_sdk
from tests.flows.cache_fault import connect, maxmemory_mib
from tests.flows.full_cache import FOUND_MIB, PATIENT, Ground, block, condition, fill_up
from tests.model_failures import FAILURES
from tests.scripted_gemini import API_KEY, assert_nothing_leaked, planned, step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

IMPATIENT = {"timeout_seconds": 0.25, "total_seconds": 0.9}
"""Where time is what ends it."""
GATHER_SECONDS = 5.0
"""Until a plan is asked for, on a machine that is busy."""
RULES = {"settle_seconds": 0, "recover_seconds": 0.3}
ACCOUNT = "gemini/lab"


@pytest.fixture(scope="module")
def model_port(control_plane: ControlPlane, lab: LabDescription) -> Iterator[int]:
    """The port at which the lab's inventory expects Gemini, with little patience; everything as it was afterwards."""
    port = free_ports(1)[0]

    async def prepare() -> None:
        load_sdk()  # which takes longer than an impatient plan may
        await reset()
        async with get_client() as client:
            inventory = await load_inventory("lab")
            await save_inventory(client, inventory.model_copy(update={"rules": inventory.rules.model_copy(update=RULES)}))
            await write(client, {"lab": block(port)})
        kept.append(inventory.rules)

    async def restore() -> None:
        async with get_client() as client:
            inventory = await load_inventory("lab")
            await save_inventory(client, inventory.model_copy(update={"rules": kept[0]}))
            await save_gemini(client, "lab", None)
        async with connect(lab) as redis:
            pages = [key async for key in redis.scan_iter(match="page:test-*", count=10_000)]
            await redis.delete(*pages)
        await reset()

    kept: list[Rules] = []
    home = Path(control_plane.environment["PREFECT_HOME"])
    settings = {PREFECT_API_URL: control_plane.api_url, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(updates=settings), asyncio.Runner() as runner:
        runner.run(prepare())
        try:
            yield port
        finally:
            runner.run(restore())


@pytest.fixture
async def ground(model_port: int, lab: LabDescription, prefect_server: ControlPlane) -> AsyncIterator[Ground]:
    """The full cache at its old limit, and the circuit closed."""
    async with connect(lab) as redis, live("lab") as opened:
        await redis.config_set("maxmemory", FOUND_MIB * 2**20)
        await redis.config_set("maxmemory-policy", "noeviction")
        await fill_up(redis)
        await opened.records.planner_succeeded(ACCOUNT)
        yield Ground(lab, model_port, opened, redis, await condition(redis), datetime.now(UTC))


@pytest.mark.filterwarnings("ignore:SOMETHING_NEW is not a valid FinishReason:UserWarning")  # so the SDK meets what it does not know
@pytest.mark.parametrize("name", FAILURES)
async def test_a_runbook_plans_where_the_model_fails(ground: Ground, name: str) -> None:
    case = FAILURES[name]
    patience = PATIENT if case.requests is not None else IMPATIENT
    ground.opened.gemini = block(ground.port, patience)
    server = GeminiServer(case.script or in_turn(planned(step())), ground.port)
    if case.script is None:
        state = await remediate("shop-cache", return_state=True)
    else:
        async with server:
            state = await remediate("shop-cache", return_state=True)
    record = await ground.record()
    notes = "\n".join(record.attempts[0].plan.notes)
    assert (state.name, record.verdict) == ("Completed", Verdict.COMPLETED), notes
    assert record.planner.startswith("runbook")
    assert "-> runbook" in notes
    assert re.search(case.says, notes), notes
    assert await maxmemory_mib(ground.lab) == 96
    assert record.timings["planned"] <= patience["total_seconds"] + GATHER_SECONDS
    assert record.attempts[0].plan.usage.seconds <= patience["total_seconds"] + 0.5
    assert case.requests is None or len(server.requests) == case.requests, notes
    assert not [one for one in server.requests if one.model != "gemini-test"]
    assert_nothing_leaked(server.requests, ground.lab)
    await ground.assert_no_worse()


async def healed_by(ground: Ground, *answers: Answer) -> tuple[str, FixRecord, list[Request]]:
    """The name of the final state, the record, and what the model was asked."""
    async with GeminiServer(in_turn(*answers), ground.port) as server:
        state = await remediate("shop-cache", return_state=True)
    assert_nothing_leaked(server.requests, ground.lab)
    await ground.assert_no_worse()
    return str(state.name), await ground.record(), server.requests


async def test_a_valid_plan_is_carried_out_and_its_use_is_recorded(ground: Ground) -> None:
    verdict, record, requests = await healed_by(ground, planned(step()))
    assert (verdict, record.planner, await maxmemory_mib(ground.lab)) == ("Completed", "gemini:gemini-test", 100)
    used = record.attempts[0].plan.usage
    assert (used.requests, len(requests)) == (1, 1)
    assert used.input_tokens == requests[0].tokens < 6000
    assert used.output_tokens > 0
    assert used.dollars > 0
    assert requests[0].headers["x-goog-api-key"] == API_KEY


@pytest.mark.parametrize("decision", ["escalate", "nothing"])
async def test_to_leave_what_stays_unwell_calls_a_person(ground: Ground, decision: str) -> None:
    found, record, _ = await healed_by(ground, planned(decision=decision, diagnosis="the sale ends in a minute"))
    assert (found, record.planner, await maxmemory_mib(ground.lab)) == ("Escalated", "gemini:gemini-test", FOUND_MIB)
    assert "the sale ends in a minute" in record.message
    assert record.attempts[0].outcomes == ()


async def test_to_do_nothing_is_right_where_it_gets_well_by_itself(ground: Ground) -> None:
    cache = ground.lab.cache

    def somebody_else_heals_it(_request: Request) -> Answer:
        with SyncRedis(host=cache.host, port=cache.port, username=cache.username, password=cache.password) as redis:
            redis.config_set("maxmemory", 100 * 2**20)
        return planned(decision="nothing", diagnosis="it is being looked after")

    async with GeminiServer(somebody_else_heals_it, ground.port):
        state = await remediate("shop-cache", return_state=True)
    record = await ground.record()
    assert (state.name, record.planner) == ("NoActionNeeded", "gemini:gemini-test")
    assert record.after is not None
    assert record.after.health == "HEALTHY"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(said("Sure!"), id="prose"),
        pytest.param(planned(step(args={"mebibytes": 10**9})), id="out of range"),
        pytest.param(planned(step(target="shop-db")), id="another resource"),
    ],
)
async def test_an_invalid_answer_is_repaired_once(ground: Ground, first: Answer) -> None:
    verdict, record, requests = await healed_by(ground, first, planned(step()))
    assert (verdict, record.planner, await maxmemory_mib(ground.lab)) == ("Completed", "gemini:gemini-test", 100)
    assert len(requests) == 2
    assert "repaired" in "\n".join(record.attempts[0].plan.notes)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(refusal(400, "INVALID_ARGUMENT", "The specified schema is too complex."), id="schema too complex"),
        pytest.param(refusal(429, "RESOURCE_EXHAUSTED", "slow down", 0.05), id="429 with RetryInfo"),
        pytest.param(refusal(503, "UNAVAILABLE", "overloaded"), id="503"),
        pytest.param(Answer(b"", reset_after_bytes=0), id="reset"),
    ],
)
async def test_a_passing_failure_is_survived(ground: Ground, first: Answer) -> None:
    verdict, record, requests = await healed_by(ground, first, planned(step()))
    assert (verdict, record.planner) == ("Completed", "gemini:gemini-test")
    assert len(requests) == record.attempts[0].plan.usage.requests == 2
    assert "again" in "\n".join(record.attempts[0].plan.notes)


@pytest.mark.parametrize(
    "denied",
    [
        pytest.param(step(args={"mebibytes": 32}), id="shrinks"),
        pytest.param(step(args={"mebibytes": 4000}), id="above the limit"),
        pytest.param(step("redis_restart", args={}), id="for another symptom"),
    ],
)
async def test_what_the_policy_denies_is_not_done(ground: Ground, denied: dict[str, Any]) -> None:
    verdict, record, _ = await healed_by(ground, planned(denied))
    assert (verdict, record.verdict, await maxmemory_mib(ground.lab)) == ("Escalated", Verdict.ESCALATED, FOUND_MIB)
    assert record.attempts[0].outcomes == ()
    assert record.attempts[0].decisions[0].startswith("deny")


async def test_the_next_plan_is_told_what_was_done_and_what_the_model_reads_before_it(ground: Ground) -> None:
    useless = step(args={"mebibytes": 64.0625})
    asked = calling(("redis_prefix_info", {"prefix": "page:test-"}), ("redis_flush", {}))
    verdict, record, requests = await healed_by(
        ground, planned(useless, diagnosis="wrong guess"), asked, calling(("done", {})), planned(step())
    )
    assert (verdict, len(record.attempts), len(requests)) == ("Completed", 2, 4)
    assert [(one.step.tool, one.undoes, one.status) for one in record.attempts[0].outcomes] == [
        ("redis_set_maxmemory", False, OutcomeStatus.DONE),
        ("redis_set_maxmemory", True, OutcomeStatus.DONE),
    ]
    first, looks, read, last = requests
    assert first.functions == ()
    assert {"redis_prefix_info", "done"} <= set(looks.functions)
    assert "64.062" not in first.text
    for told in ("wrong guess", '"planned":[{"tool":"redis_set_maxmemory"', "64.062", "memory_percent"):
        assert told in last.text
    found, refused = read.function_responses
    assert "sampled_keys" in found["response"]["output"]
    assert "error" in refused["response"]
    assert SIGNATURE in read.whole
    assert "sampled_keys" in last.text.partition("What you read since:")[2]
    assert any(note.startswith("investigated: redis_prefix_info") and "sampled_keys" in note for note in record.attempts[1].plan.notes)


READ_CIRCUIT = f"""
import asyncio, sys
from tasks.records.repository import Records

async def read():
    records = await Records.open(sys.argv[1])
    print((await records.circuit({ACCOUNT!r})).failures)
    await records.close()

asyncio.run(read())
"""


async def failures_seen_by_another_process() -> str:
    """What the circuit of the lab is read as by a process that has only the records."""
    url = await load_records_url()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", READ_CIRCUIT, url, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode().strip()


async def test_the_circuit_opens_outlives_the_process_and_closes_again(ground: Ground) -> None:
    records, planner = ground.opened.records, in_turn(refusal(403, "PERMISSION_DENIED", "no"))

    async def once(script: Script) -> tuple[list[Request], str]:
        await ground.redis.config_set("maxmemory", FOUND_MIB * 2**20)
        await fill_up(ground.redis)
        since = datetime.now(UTC)
        async with GeminiServer(script, ground.port) as server:
            state = await remediate("shop-cache", return_state=True)
        assert state.name == "Completed"
        (record,) = await records.history(inventory="lab", since=since, limit=5)
        return server.requests, "\n".join((record.planner, *record.attempts[0].plan.notes))

    for _ in range(3):
        assert len((await once(planner))[0]) == 1
    requests, notes = await once(in_turn(planned(step())))
    assert requests == []
    assert "3 failures in a row, not asked again until" in notes
    assert await failures_seen_by_another_process() == "3"
    await records.planner_failed(ACCOUNT, datetime.now(UTC) - timedelta(hours=1))  # as if the pause had begun long ago
    requests, notes = await once(in_turn(planned(step())))
    assert (len(requests), notes.startswith("gemini:")) == (1, True)
    assert (await records.circuit(ACCOUNT)).is_closed()
