"""From the `notify` section to a message at a receiver, by a real Prefect server; each test starts without automations."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue
from threading import Thread
from typing import Any

import httpx
import pytest
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Completed

from blocks.errors import ConfigurationError
from blocks.inventory_file import parse_inventory
from blocks.notifications import BLOCK, NAMES
from blocks.register import Saved, register
from blocks.vanished import VANISHED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server", "clean_server"),
    # Of apprise, which Prefect sends through; and of Prefect, whose flow runs leave clients open for the process to end.
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
MESSAGE_SECONDS = 10.0
QUIET_SECONDS = 0.7
SECRETS = {"SLACK": "https://hooks.slack.com/services/T0AAA/B0BBB/s3cretslack", "KEY": "SG.s3cretmail", "HOOK": ""}
ALL = (
    "notify: {slack: '${SLACK}', webhook: '${HOOK}',"
    " email: {sendgrid_api_key: '${KEY}', sender: evenkeel@example.com, recipients: [on-call@example.com]}}"
)


def text(more: str, name: str = "hooks") -> str:
    return f"name: {name}\nresources: [{{name: api, kind: http, address: 'http://127.0.0.1:9/'}}]\n{more}\n"


class Receiver:
    """A webhook receiver on loopback that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: Queue[dict[str, Any]] = Queue()
        receiver = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.headers["content-type"] == "application/json"
                receiver.messages.put(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/s3crethook"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    async def next(self, seconds: float = MESSAGE_SECONDS) -> dict[str, Any] | None:
        """The next message, or None when there is none in that time."""
        try:
            return await asyncio.to_thread(self.messages.get, timeout=seconds)
        except Empty:
            return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
async def clean_server(prefect_server: None) -> AsyncIterator[None]:
    """No automation, and no warning about what a flow run left open, outlives a test."""
    with temporary_settings(updates={PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield
    async with get_client() as client:
        for automation in await client.read_automations():
            await client.delete_automation(automation.id)
    gc.collect()


async def saved_automations() -> list[dict[str, Any]]:
    """The automations of which people are told, asked of the server's API over plain HTTP."""
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.post("/automations/filter", json={})
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return sorted((one for one in found if one["name"] != VANISHED), key=lambda automation: str(automation["name"]))


async def saved_channels() -> dict[str, dict[str, Any]]:
    """The channels' blocks by type, with their secrets."""
    query = {"block_documents": {"name": {"like_": BLOCK}}, "include_secrets": True}
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.post("/block_documents/filter", json=query)
    return {document["block_type"]["slug"]: document["data"] for document in answer.raise_for_status().json()}


@flow(name="remediate", flow_run_name="Heal {resource}", persist_result=False)
async def ends(resource: str, state: str, inventory: str = "hooks") -> State[Any]:
    if state == "Completed":
        return Completed(message="all checks pass")
    return State(type=StateType.FAILED, name=state, message='a person is needed: "redis_flush" was planned <b>')


@flow(name="remediate", flow_run_name="Heal {resource}", persist_result=False)
async def breaks(resource: str) -> None:
    raise RuntimeError("connecting with password=hunter2")


class Answer(RunInput):
    answer: str = "reject"


@flow(name="approve", persist_result=False)
async def waits(inventory: str = "hooks") -> None:
    await asuspend_flow_run(wait_for_input=Answer, timeout=60)


async def test_an_escalation_is_told_once_and_a_completion_or_a_strangers_run_not_at_all(receiver: Receiver) -> None:
    await register(parse_inventory(text("notify: {webhook: '${HOOK}'}"), {"HOOK": receiver.url}))
    with tags("evenkeel", "shop-cache"):
        await ends("healthy", "Completed", return_state=True)
    await ends("stranger", "Escalated", return_state=True)
    with tags("evenkeel", "shop-cache"):
        run = await ends("shop-cache", "Escalated", return_state=True)
    message = await receiver.next()
    assert message is not None
    assert message["situation"] == "A person is needed"
    assert (message["run"], message["state"], message["inventory"]) == ("Heal shop-cache", "Escalated", "hooks")
    assert message["message"] == 'a person is needed: "redis_flush" was planned <b>'
    assert "shop-cache" in message["tags"]
    assert message["url"].startswith("http")
    assert message["url"].endswith(f"/runs/flow-run/{run.state_details.flow_run_id}")
    assert message["text"].splitlines()[0] == "A person is needed: Heal shop-cache"
    assert message["url"] in message["text"]
    assert await receiver.next(QUIET_SECONDS) is None


async def test_a_failure_is_told_without_what_its_exception_says(receiver: Receiver) -> None:
    await register(parse_inventory(text("notify: {webhook: '${HOOK}'}"), {"HOOK": receiver.url}))
    with tags("evenkeel"):
        await breaks("shop-db", return_state=True)
    message = await receiver.next()
    assert message is not None
    assert (message["situation"], message["state"]) == ("A remediation failed", "Failed")
    assert "ended by an error" in message["message"]
    assert "hunter2" not in json.dumps(message)


async def test_a_run_that_waits_for_an_answer_is_told_once(receiver: Receiver) -> None:
    await register(parse_inventory(text("notify: {webhook: '${HOOK}'}"), {"HOOK": receiver.url}))
    async with get_client() as client:
        deployment = await client.create_deployment(await client.create_flow(waits), "by-hand", tags=["evenkeel"])
        run = await client.create_flow_run_from_deployment(deployment, name="Approve redis_flush on shop-cache?")
    with pytest.raises(Pause):
        await run_flow_async(waits, flow_run=run)
    message = await receiver.next()
    assert message is not None
    assert message["situation"] == "An approval is needed"
    assert message["run"] == "Approve redis_flush on shop-cache?"
    assert message["url"].endswith(str(run.id))
    assert await receiver.next(QUIET_SECONDS) is None


async def test_registering_again_leaves_one_set_and_what_a_person_switched_off(receiver: Receiver) -> None:
    registration = parse_inventory(text(ALL), SECRETS | {"HOOK": receiver.url})
    await register(registration)
    first = await saved_automations()
    assert [one["name"] for one in first] == sorted(NAMES)
    assert all([action["type"] for action in one["actions"]] == ["send-notification", "send-notification", "call-webhook"] for one in first)
    assert await register(registration) == Saved(written=0, deleted=0)
    async with get_client() as client:
        await client.pause_automation(first[0]["id"])
    changed = text(f"{ALL.replace('evenkeel@', 'alerts@')}")
    assert await register(parse_inventory(changed, SECRETS | {"HOOK": receiver.url})) == Saved(written=1, deleted=0)
    fewer = parse_inventory(text("notify: {slack: '${SLACK}'}"), SECRETS)
    assert await register(fewer) == Saved(written=4, deleted=2)
    second = await saved_automations()
    assert [one["id"] for one in second] == [one["id"] for one in first]
    assert [one["enabled"] for one in second] == [False, True, True, True]
    assert set(await saved_channels()) == {"slack-webhook"}


async def test_what_a_section_declared_goes_with_it_and_with_no_other_inventorys(receiver: Receiver) -> None:
    environment = SECRETS | {"HOOK": receiver.url}
    await register(parse_inventory(text(ALL), environment))
    await register(parse_inventory(text("", name="other"), environment))
    assert len(await saved_automations()) == len(NAMES)
    await register(parse_inventory(text(""), environment))
    assert (await saved_automations(), await saved_channels()) == ([], {})


async def test_the_secrets_are_in_the_blocks_alone(receiver: Receiver) -> None:
    registration = parse_inventory(text(ALL), SECRETS | {"HOOK": receiver.url})
    await register(registration)
    assert "s3cret" not in repr(registration)
    assert "s3cret" not in json.dumps(await saved_automations())
    channels = await saved_channels()
    assert channels["slack-webhook"]["url"] == SECRETS["SLACK"]
    assert channels["sendgrid-email"]["api_key"] == SECRETS["KEY"]
    assert channels["webhook"]["url"] == receiver.url
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        hidden = await http.post("/block_documents/filter", json={"block_documents": {"name": {"like_": BLOCK}}})
    assert BLOCK in hidden.text
    assert "s3cret" not in hidden.text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{slack: 'https://hooks.slack.com/s3cret'}", "notify.slack: a secret in plain text; write ${NOTIFY_SLACK} here"),
        ("{slack: '${BAD}'}", "notify.slack: the variable holds no Slack webhook; it looks like https://hooks.slack.com/services/"),
        ("{webhook: '${BAD}'}", "notify.webhook: the variable holds no address; write http(s)://host/path into it"),
        ("{webhook: '${NONE}'}", "notify.webhook: the environment variable NONE is not set; export NONE=..."),
        ("{email: {sendgrid_api_key: '${KEY}', sender: me, recipients: [a@b.example]}}", "notify.email.sender: "),
        ("{email: {sendgrid_api_key: '${KEY}', sender: a@b.example}}", "notify.email.recipients: is missing; add it"),
        ("{slak: '${BAD}'}", "notify.slak: no such field; did you mean 'slack'?"),
        ("{}", "notify: name at least one of slack, webhook and email, or leave `notify` out"),
        ("", "notify: "),
    ],
)
def test_what_is_wrong_with_the_section_is_named_without_its_secrets(written: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_inventory(text(f"notify: {written}"), SECRETS | {"BAD": "s3cret"})
    assert caught.value.problems[0].startswith(f"line 3: {said}"), caught.value.problems
    assert "s3cret" not in str(caught.value)
