"""The call layer over Google's own libraries, against a local server that answers as scripted."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import RefreshError, TransportError
from google.cloud import compute_v1
from googleapiclient.discovery import build

from tasks.clients.google_calls import Repeat, google_call
from tasks.clients.google_errors import Who
from tasks.clients.google_session import SessionHttp
from tasks.core.errors import EvenkeelError, NotApplicable, OutcomeUnknown, ToolFailed, Unreachable

WHO = Who("shop", "keeper@shop.iam.gserviceaccount.com")
DROPPED = -1
HANGS = -2


def refusal(code: int, reason: str, message: str, **more: Any) -> bytes:
    error = {"code": code, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}], **more}
    return json.dumps({"error": error}).encode()


@dataclass
class Scripted:
    """Gives one answer after the other, and the last one on and on; counts what it received."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    received: list[str] = field(default_factory=list)

    def script(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers, self.received = [*answers], []

    def next(self) -> tuple[int, dict[str, str], bytes]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


OK: tuple[int, dict[str, str], bytes] = (200, {}, b'{"name": "operation-1", "status": "DONE", "items": {}}')


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    told = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.received.append(f"{self.command} {self.path} {body.decode()}")
            status, headers, content = told.next()
            if status == HANGS:
                time.sleep(0.8)
            if status < 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Api:
    """The two REST libraries, pointed at the scripted server."""

    compute: compute_v1.InstancesClient
    sql: Any
    session: requests.Session

    def listed(self, timeout: float) -> Any:
        request = compute_v1.AggregatedListInstancesRequest(project="shop")
        return self.compute.aggregated_list(request, timeout=timeout, retry=None)

    def started(self, timeout: float) -> Any:
        request = compute_v1.StartInstanceRequest(project="shop", zone="z", instance="vm", request_id="0e0e")
        return self.compute.start_unary(request, timeout=timeout, retry=None)

    def restarted(self, timeout: float) -> Any:
        request = self.sql.instances().restart(project="shop", instance="db")
        return request.execute(http=SessionHttp(self.session, timeout), num_retries=0)


@pytest.fixture(scope="module")
def api(scripted: Scripted) -> Iterator[Api]:
    with requests.Session() as session:
        session.trust_env = False
        compute = compute_v1.InstancesClient(
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options=ClientOptions(api_endpoint=scripted.url),
        )
        options = ClientOptions(api_endpoint=scripted.url)
        sql = build("sqladmin", "v1", http=SessionHttp(session, 5), client_options=options, static_discovery=True)
        with compute:
            yield Api(compute, sql, session)


def busy(status: int, reason: str, after: str = "0") -> tuple[int, dict[str, str], bytes]:
    return status, {"Retry-After": after}, refusal(status, reason, "not now")


async def test_what_reads_is_repeated_until_it_is_answered_and_waits_as_long_as_google_asks(scripted: Scripted, api: Api) -> None:
    scripted.script(busy(503, "backendError"), busy(429, "rateLimitExceeded", "1"), (DROPPED, {}, b""), OK)
    started = time.monotonic()
    await google_call("list", api.listed, repeat=Repeat.READ, deadline_seconds=30)
    assert len(scripted.received) == 4
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("lost", [(DROPPED, {}, b""), (HANGS, {}, b""), busy(503, "backendError")], ids=["dropped", "hangs", "503"])
async def test_a_change_whose_reply_is_lost_is_sent_once_and_again_only_with_a_request_id(
    scripted: Scripted, api: Api, lost: tuple[int, dict[str, str], bytes]
) -> None:
    scripted.script(lost, OK)
    with pytest.raises(OutcomeUnknown):
        await google_call("restart db", api.restarted, repeat=Repeat.NEVER, deadline_seconds=0.4)
    await asyncio.sleep(0.1)
    assert len(scripted.received) == 1, "the library itself must not send it again either"
    scripted.script(lost, OK)
    assert (await google_call("start vm", api.started, repeat=Repeat.IDEMPOTENT, deadline_seconds=4)).name == "operation-1"
    assert len(scripted.received) == 2
    assert scripted.received[0] == scripted.received[1]
    assert "requestId=0e0e" in scripted.received[0]


async def test_what_comes_too_fast_did_nothing_and_is_sent_again(scripted: Scripted, api: Api) -> None:
    scripted.script(busy(429, "rateLimitExceeded"), busy(403, "userRateLimitExceeded"), OK)
    await google_call("restart db", api.restarted, repeat=Repeat.NEVER, deadline_seconds=20)
    assert len(scripted.received) == 3
    scripted.script(busy(429, "rateLimitExceeded", "60"))
    with pytest.raises(ToolFailed, match="quota"):  # the time is shorter than what it is asked to wait
        await google_call("restart db", api.restarted, repeat=Repeat.NEVER, deadline_seconds=5)
    assert len(scripted.received) == 1


FORBIDDEN = refusal(403, "forbidden", "Required 'compute.instances.start' permission for 'projects/shop/zones/z/instances/vm'")


@pytest.mark.parametrize(
    ("answer", "expected", "told"),
    [
        ((403, {}, FORBIDDEN), ToolFailed, "lacks the permission compute.instances.start.*-binding shop .*serviceAccount:keeper"),
        ((403, {}, refusal(403, "accessNotConfigured", "Compute Engine API has not been used")), ToolFailed, "gcloud services enable"),
        ((403, {}, refusal(403, "quotaExceeded", "Quota 'CPUS' exceeded")), ToolFailed, "raise the quota of project shop"),
        ((404, {}, refusal(404, "notFound", "no vm")), ToolFailed, "no such thing in project shop"),
        ((409, {}, refusal(409, "operationInProgress", "another operation")), NotApplicable, "wrong state"),
        ((400, {}, refusal(400, "failedPrecondition", "x", status="FAILED_PRECONDITION")), NotApplicable, "wrong state"),
        ((400, {}, refusal(400, "resourceNotReady", "not ready")), NotApplicable, "wrong state"),
        ((400, {}, refusal(400, "invalid", "Invalid value for 'x'")), ToolFailed, "Invalid value"),
        ((401, {}, refusal(401, "authError", "Invalid Credentials")), ToolFailed, "refuses the credentials of keeper@"),
        ((502, {}, b"<html><title>502 Bad Gateway</title></html>"), OutcomeUnknown, "502 Bad Gateway"),
    ],
    ids=["permission", "not enabled", "quota", "not found", "in progress", "precondition", "not ready", "invalid", "token", "not JSON"],
)  # fmt: skip
async def test_each_refusal_becomes_the_error_that_says_what_to_do(
    scripted: Scripted, api: Api, answer: tuple[int, dict[str, str], bytes], expected: type[EvenkeelError], told: str
) -> None:
    for send in (api.started, api.restarted):
        scripted.script(answer)
        with pytest.raises(expected, match=told):
            await google_call("start vm", send, repeat=Repeat.NEVER, deadline_seconds=5, who=WHO)
        assert len(scripted.received) == 1


async def test_what_was_never_sent_is_unreachable_also_where_it_would_change_something() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    def refused(timeout: float) -> None:
        requests.post(url, timeout=timeout, proxies={"http": ""})

    def no_token(_timeout: float) -> None:
        raise TransportError("the token endpoint is down")  # type: ignore[no-untyped-call]

    def bad_key(_timeout: float) -> None:
        raise RefreshError("invalid_grant: Invalid JWT Signature.", {"error": "invalid_grant"})  # type: ignore[no-untyped-call]

    for send in (refused, no_token):
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await google_call("start vm", send, repeat=Repeat.NEVER, deadline_seconds=1)
        assert time.monotonic() - started < 20
    with pytest.raises(ToolFailed, match=r"invalid_grant.*register the inventory again"):
        await google_call("start vm", bad_key, repeat=Repeat.READ, deadline_seconds=5, who=WHO)


async def test_a_library_that_never_returns_is_given_up() -> None:
    over = threading.Event()
    try:
        with pytest.raises(OutcomeUnknown):
            await google_call("start vm", lambda _timeout: over.wait(20), repeat=Repeat.NEVER, deadline_seconds=0.2)
    finally:
        over.set()
