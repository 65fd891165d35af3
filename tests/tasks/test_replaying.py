"""Past incidents in a file, planned again: by whom one likes, and without a connection to anything but the model."""

import asyncio
import json
import logging
import socket
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.gemini import GeminiBlock
from blocks.gemini_settings import GeminiSettings
from blocks.schema import CLOUD_KINDS, Kind
from compose.gemini_server import GeminiServer
from compose.gemini_wire import calling, in_turn
from tasks.catalog import load_catalog
from tasks.core.models import Attempt, FixRecord, Outcome, OutcomeStatus, Plan, Verdict
from tasks.core.policy import Action, Standing
from tasks.core.replay import Planned, Question, Ruled, Sameness, SavedIncident, ShadowAnswer
from tasks.core.ruling import rule_on
from tasks.planners.runbooks import RunbookPlanner
from tasks.records.__main__ import main as records_main
from tasks.records.archive import archive_of
from tasks.records.repository import Records
from tasks.replaying.__main__ import main
from tasks.replaying.again import asking, plan_again
from tasks.replaying.model import replay_model
from tests.incidents import READINGS, context_of, lab_inventory
from tests.scripted_gemini import planned as planned_by_model
from tests.scripted_gemini import step

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CATALOG, RULES = load_catalog(), lab_inventory().rules
SECRETS = {
    "by value": "correct-horse-battery",
    "by rule": "s3cret-behind-a-key",
    "by pattern": "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
}


async def saved(incident: str, address: str | None = None, said: str = "") -> SavedIncident:
    """An incident that a runbook has planned for; the resource is at that address."""
    context = context_of(incident)
    if address is not None and context.resource.kind not in {Kind.CONTAINER, *CLOUD_KINDS}:
        place = f"http://{address}/" if "://" in context.resource.address else address
        context = context.model_copy(update={"resource": context.resource.model_copy(update={"address": place})})
    context = context.model_copy(update={"tools": CATALOG.offered(context.observation), "error_lines": (said,) if said else ()})
    plan = await RunbookPlanner(CATALOG, RULES).plan(context)
    standing = Standing(now=NOW)
    rulings = rule_on(plan, context, tools=CATALOG.tools, rules=RULES, standing=standing)
    outcomes = tuple(Outcome(step=one, status=OutcomeStatus.DONE, message=said, started_at=NOW) for one in plan.steps)
    fix = FixRecord(
        id=f"fix of {incident}",
        incident=context.incident,
        planner=plan.planner,
        attempts=(Attempt(plan=plan, observed=context.observation, facts=context.facts, outcomes=outcomes),),
        before=context.observation,
        verdict=Verdict.COMPLETED,
        opened_at=NOW,
    )
    asked = Planned(attempt=1, asked_at=NOW, question=Question.of(context, standing, RULES), acted=Ruled(plan=plan, rulings=rulings))
    return SavedIncident(fix=fix, planned=(asked,))


@dataclass
class Watched:
    """What a process does that is seen from outside, while it is watched."""

    seen: list[str] = field(default_factory=list)
    is_on: bool = False

    def audit(self, event: str, _args: object) -> None:
        """Called by the interpreter for every event; can't be taken away again."""
        if self.is_on and event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.posix_spawn"}:
            self.seen.append(event)


WATCHED = Watched()
sys.addaudithook(WATCHED.audit)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server at which every resource is; the interpreter's audit sees Python's connections, and this one those of libraries in C."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        WATCHED.seen.clear()
        yield listening
        WATCHED.is_on = False


def connections(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


async def write(path: Path, address: str) -> Path:
    """Every incident that the tests know, in a file."""
    incidents = [await saved(incident, address) for incident in READINGS]
    path.write_text(archive_of(incidents).model_dump_json(), encoding="utf-8")
    return path


async def test_every_incident_is_planned_again_without_a_connection_and_comes_out_the_same(
    server: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = await write(tmp_path / "incidents.json", f"127.0.0.1:{server.getsockname()[1]}")
    WATCHED.is_on = True
    assert await asyncio.to_thread(main, [str(file), "--json"]) == 0
    WATCHED.is_on = False
    report = json.loads(capsys.readouterr().out)
    assert report["agreement"]["plans"] == report["agreement"]["same"] == len(READINGS)
    assert report["agreement"]["policy_differs"] == 0
    assert (connections(server), WATCHED.seen) == (0, [])
    # Otherwise the two above would prove nothing.
    WATCHED.is_on = True
    socket.create_connection(server.getsockname()).close()
    assert (connections(server), WATCHED.seen) == (1, ["socket.getaddrinfo", "socket.connect"])


async def test_other_rules_are_held_against_the_old_plans_and_the_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = await write(tmp_path / "incidents.json", "127.0.0.1:1")
    run = [str(file), "--planner", "as recorded", "--rule", "autonomy=approve", "--rule", "max_steps=3"]
    assert await asyncio.to_thread(main, [*run, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["agreement"]["same"] == len(READINGS)
    assert report["agreement"]["policy_differs"] > 10
    words = {ruling["action"] for one in report["plans"] for ruling in one["now"]}
    assert Action.ALLOW not in words
    assert await asyncio.to_thread(main, run) == 0
    assert "plans are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "max_steps=99"], "rules.max_steps: Input should be less than or equal to 20"),
        (["--rule", "max_step=9"], "rules.max_step: "),
        (["--rule", "max_steps"], "write NAME=VALUE"),
        (["--planner", "astrologer"], "invalid choice"),
    ],
)
async def test_what_can_not_be_asked_is_said(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.json"
    file.write_text(archive_of([await saved("cache: memory_high")]).model_dump_json(), encoding="utf-8")
    assert await asyncio.to_thread(exit_code, [str(file), *arguments]) == 2
    assert said in capsys.readouterr().err


def exit_code(arguments: list[str]) -> object:
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(
    "text", ["", "{}x", '{"format": "evenkeel-incidents", "version": 2}', '{"incidents": [{"fix": {"secret": "hunter2"}}]}']
)
def test_a_file_that_is_none_is_named_and_not_quoted(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text(text)
    assert main([str(tmp_path / "broken.json")]) == 2
    said = capsys.readouterr().err
    assert "broken.json" in said
    assert "records export" in said
    assert "hunter2" not in said
    assert main([str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    """Records of this test's own."""
    async with await Records.open(f"sqlite:///{tmp_path}/records.db") as opened:
        yield opened


async def keep(records: Records, incident: SavedIncident) -> None:
    fix, (planned,) = incident.fix, incident.planned
    assert await records.open_fix(fix, "me", NOW)
    await records.save_question(fix.id, 1, planned.question, planned.acted, NOW)
    assert await records.close_fix(fix, "me", Verdict.COMPLETED, fix.message, NOW)


async def test_no_secret_is_in_the_bytes_of_a_file_and_what_is_no_secret_is(records: Records, tmp_path: Path) -> None:
    said = f"role has {SECRETS['by value']}; password={SECRETS['by rule']}; remote https://{SECRETS['by pattern']}@git.example.com"
    incident = await saved("cache: memory_high", said=said)
    (planned,) = incident.planned
    told = planned.acted.plan.model_copy(update={"diagnosis": said, "notes": (said,)})
    await keep(records, SavedIncident(fix=incident.fix, planned=(planned.model_copy(update={"acted": Ruled(plan=told)}),)))
    await records.save_shadow(incident.fix.id, 1, ShadowAnswer(planner="gemini:x", said=said))
    (tmp_path / "lab.env").write_text(f"CACHE_PASSWORD={SECRETS['by value']}\n")
    to, url = tmp_path / "out.json", f"sqlite:///{tmp_path}/records.db"
    arguments = ["export", "--url", url, "--to", str(to), "--env-file", str(tmp_path / "lab.env"), incident.fix.id]
    assert await asyncio.to_thread(records_main, arguments) == 0
    content = to.read_bytes()
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert not [kind for kind, secret in SECRETS.items() if secret.encode() in content]
    assert content.count(b"[masked]") >= 12
    for kept in (b"memory_percent", b"96.88", b"redis_set_maxmemory", b"git.example.com", b"role has"):
        assert kept in content
    assert await asyncio.to_thread(main, [str(to)]) == 0
    assert await asyncio.to_thread(records_main, arguments) == 2, "it overwrites nothing"


async def test_what_is_exported_is_what_was_asked_for(records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for incident in ("cache: memory_high", "db: down"):
        await keep(records, await saved(incident))
    run = ["export", "--url", f"sqlite:///{tmp_path}/records.db"]
    assert await asyncio.to_thread(records_main, [*run, "--all"]) == 0
    assert len(json.loads(capsys.readouterr().out)["incidents"]) == 2
    assert await asyncio.to_thread(records_main, [*run, "nothing"]) == 2
    assert "no fix 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        records_main(run)


async def test_another_model_with_other_instructions_is_asked_on_an_account_of_its_own(records: Records) -> None:
    incident = await saved("cache: memory_high")
    (asked,) = incident.planned
    read = 'investigated: redis_prefix_info {"prefix": "page:"}: {"sampled_keys": 7}'
    plan: Plan = asked.acted.plan.model_copy(update={"notes": (read,)})
    asked = asked.model_copy(update={"acted": asked.acted.model_copy(update={"plan": plan})})
    earlier = asked.question.context.model_copy(update={"attempts": incident.fix.attempts})
    again = SavedIncident(fix=incident.fix, planned=(asked.model_copy(update={"attempt": 2}),))
    assert again.context(again.planned[0]) == earlier
    look = calling(("redis_prefix_info", {"prefix": "page:"}), ("redis_prefix_info", {"prefix": "cart:"}))
    async with GeminiServer(in_turn(look, calling(("done", {})), planned_by_model(step()))) as server:
        block = GeminiBlock(settings=GeminiSettings(model="gemini-acts", base_url=server.url), api_key=SecretStr("none"))
        opened = replay_model(
            block, CATALOG, records, account="gemini/lab/replan", model="gemini-other", instructions="Be bold, in {max_steps} steps {}.",
            logger=logging.getLogger("evenkeel.test"),
        )  # fmt: skip
        async with opened as open_model:
            made = await plan_again(again, again.planned[0], asking("gemini", CATALOG, open_model), CATALOG, {})
    assert (made.planner, made.sameness) == ("gemini:gemini-other", Sameness.ARGUMENTS)
    assert made.would is not None
    assert made.would.word is Action.ALLOW
    assert {request.model for request in server.requests} == {"gemini-other"}
    assert all(request.text.startswith("Be bold, in 4 steps {}.") for request in server.requests)
    found, missing = [response["response"] for response in server.requests[1].function_responses]
    assert "sampled_keys" in str(found)
    assert "no server is asked now" in str(missing)
    assert (await records.use_of("gemini/lab/replan", datetime.now(UTC).date())).requests == made.usage.requests == 3
    assert (await records.use_of("gemini/lab", datetime.now(UTC).date())).requests == 0


async def test_a_model_that_fails_is_no_plan_and_a_shadows_plan_is_compared_too(records: Records) -> None:
    incident = await saved("cache: memory_high")
    (asked,) = incident.planned
    block = GeminiBlock(settings=GeminiSettings(base_url="http://127.0.0.1:1", total_seconds=0.2), api_key=SecretStr("none"))
    opened = replay_model(block, CATALOG, records, account="a", model="", instructions="", logger=logging.getLogger("evenkeel.test"))
    async with opened as open_model:
        made = await plan_again(incident, asked, asking("gemini", CATALOG, open_model), CATALOG, {})
    assert (made.sameness, made.would) == (Sameness.NONE, None)
    assert made.said
    none = await plan_again(incident, asked, asking("shadow", CATALOG), CATALOG, {})
    assert none.said == "no shadow was planning then"
    seen = asked.model_copy(update={"shadow": ShadowAnswer(planner="gemini:x", answer=asked.acted)})
    made = await plan_again(incident, seen, asking("shadow", CATALOG), CATALOG, {})
    assert (made.planner, made.sameness) == ("gemini:x", Sameness.SAME)


async def test_a_tool_that_is_gone_is_denied() -> None:
    incident = await saved("cache: memory_high")
    (asked,) = incident.planned
    (old,) = asked.acted.plan.steps
    plan = asked.acted.plan.model_copy(update={"steps": (old.model_copy(update={"tool": "redis_pray"}),)})
    gone = asked.model_copy(update={"acted": Ruled(plan=plan, rulings=asked.acted.rulings)})
    made: Any = await plan_again(incident, gone, asking("as recorded", CATALOG), CATALOG, {})
    assert [(ruling.action, ruling.reason) for ruling in made.now] == [(Action.DENY, "there is no tool redis_pray any more")]
