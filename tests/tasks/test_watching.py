"""Events and alerts become looks: one a resource at a time, not more than the rate allows, and nothing is lost silently."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from blocks.runtimes import ContainerRuntime
from blocks.schema import Inventory, Kind, Resource
from tasks.alerts import MAX_BODY_BYTES, CannotListen, Receiver, receiving
from tasks.clients.container_streams import CONNECTED, LOST, ContainerEvent
from tasks.core.admission import TokenBucket
from tasks.watching import Offered, Watching, causes_of, follow_engine

ENGINE = "unix:///var/run/docker.sock"
TOKEN = "a-token-of-the-tests"
LOGGER = logging.getLogger("tests.watching")
SHOP = Inventory(
    name="unit",
    resources=(
        Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:6379", runtime=ContainerRuntime(container="shop-cache-1")),
        Resource(name="box", kind=Kind.CONTAINER, address="shop-cache-1"),
        Resource(name="api", kind=Kind.CONTAINER, address="shop-api-1"),
        Resource(
            name="far", kind=Kind.CONTAINER, address="shop-api-1", runtime=ContainerRuntime(container="shop-api-1", engine="tcp://h:1")
        ),
        Resource(name="db", kind=Kind.POSTGRES, address="127.0.0.1:5432/shop", logins={"monitor": "evenkeel"}),
    ),
)


class Looks:
    """Looks that last until they are let go."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[str], str]] = []
        self.go_on = asyncio.Event()

    async def __call__(self, resources: list[str], cause: str) -> None:
        self.seen.append((resources, cause))
        await self.go_on.wait()


def watching(looks: Any, capacity: float = 100) -> Watching:
    return Watching(looks, TokenBucket(capacity, 0.001), LOGGER)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_resource_is_looked_at_once_at_a_time() -> None:
    looks = Looks()
    watched = watching(looks)
    assert watched.offer({"cache": "died", "db": "alert"}) == Offered(("cache", "db"))
    assert watched.offer({"cache": "again", "api": "died"}) == Offered(("api",), ("cache",))
    assert watched.offer({"cache": "again"}) == Offered((), ("cache",))
    await asyncio.sleep(0)
    assert looks.seen == [(["cache", "db"], "died"), (["api"], "died")]
    looks.go_on.set()
    await watched.drained()
    assert watched.offer({"cache": "died"}) == Offered(("cache",))
    await watched.drained()
    assert (watched.looks, watched.duplicates, watched.dropped) == (3, 2, 0)


async def test_what_is_too_much_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks()
    watched = watching(looks, capacity=1)
    assert watched.offer({"cache": "died"}).looked_at == ("cache",)
    for _ in range(3):
        offered = watched.offer({"db": "alert", "cache": "again"})
        assert (offered.looked_at, offered.already, offered.dropped) == ((), ("cache",), ("db",))
        assert offered.retry_seconds > 0
    assert watched.dropped == 3
    assert sum("turned away" in message for message in caplog.messages) == 1
    looks.go_on.set()
    await watched.drained()


async def test_a_look_that_fails_is_told_and_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(resources: list[str], cause: str) -> None:
        raise OSError(f"no way to {resources}")

    watched = watching(fails)
    watched.offer({"cache": "died"})
    await watched.drained()
    assert "the look at cache failed" in caplog.text
    assert watched.offer({"cache": "died"}).looked_at == ("cache",)
    await watched.drained()


def event(action: str, container: str = "shop-cache-1", **attributes: str) -> ContainerEvent:
    return ContainerEvent(container, action, 0.0, attributes)


@pytest.mark.parametrize(
    ("happened", "causes"),
    [
        (event("die", exitCode="137"), dict.fromkeys(["cache", "box"], "container shop-cache-1 died (exit code 137)")),
        (event("health_status: unhealthy", "shop-api-1"), {"api": "container shop-api-1 is unhealthy"}),
        (event("rename", "other", oldName="/shop-api-1"), {"api": "container other was renamed"}),
        (event("start"), {}),
        (event("kill", signal="1"), {}),
        (event("health_status: healthy"), {}),
        (event("die", "somebody-elses"), {}),
        (event(CONNECTED, ""), {}),
    ],
)
def test_an_event_concerns_what_runs_in_its_container(happened: ContainerEvent, causes: dict[str, str]) -> None:
    assert causes_of(happened, ENGINE, SHOP) == causes


async def test_events_that_come_together_are_one_look_and_an_engine_that_is_back_concerns_all() -> None:
    told: asyncio.Queue[ContainerEvent | Exception] = asyncio.Queue()

    async def events(engine: str) -> AsyncGenerator[ContainerEvent]:
        assert engine == ENGINE
        while True:
            happened = await told.get()
            if isinstance(happened, Exception):
                raise happened
            yield happened

    looks = Looks()
    looks.go_on.set()
    following = asyncio.create_task(follow_engine(ENGINE, SHOP, watching(looks), events))
    for happened in (event(CONNECTED, ""), event("die"), event("die", "shop-api-1"), event("start")):
        told.put_nowait(happened)
    await until(lambda: looks.seen)
    assert looks.seen == [(["cache", "box", "api"], "container shop-cache-1 died")]
    told.put_nowait(event(LOST, ""))
    await asyncio.sleep(0.05)
    told.put_nowait(event(CONNECTED, ""))
    await until(lambda: len(looks.seen) == 2)
    assert looks.seen[1] == (["cache", "box", "api"], "the container engine is back")
    told.put_nowait(ValueError("not to be read"))
    with pytest.raises(ValueError, match="not to be read"):
        await asyncio.wait_for(following, 20)


class Posting:
    """A receiver, and a client that posts to it."""

    def __init__(self, receiver: Receiver, url: str, http: httpx.AsyncClient) -> None:
        self.receiver = receiver
        self.url = url
        self.http = http

    async def __call__(self, body: Any, token: str | None = TOKEN, **headers: str) -> httpx.Response:
        sent = headers | ({} if token is None else {"authorization": f"Bearer {token}"})
        return await self.http.post(self.url, content=body if isinstance(body, bytes) else json.dumps(body), headers=sent)


@pytest.fixture
async def posting() -> AsyncIterator[Posting]:
    looks = Looks()
    looks.go_on.set()
    receiver = Receiver(SHOP, SecretStr(TOKEN), watching(looks, capacity=2), logger=LOGGER)
    async with receiving(receiver, "127.0.0.1:0") as url, httpx.AsyncClient(trust_env=False, timeout=20) as http:
        yield Posting(receiver, url, http)


def notification(*labels: dict[str, str], status: str = "firing") -> dict[str, Any]:
    alerts = [{"status": status, "labels": found, "annotations": {}} for found in labels]
    return {"version": "4", "status": status, "receiver": "evenkeel", "alerts": alerts}


async def test_alerts_are_looked_into(posting: Posting, caplog: pytest.LogCaptureFixture) -> None:
    cache, unknown = {"alertname": "Full", "instance": "127.0.0.1:6379"}, {"alertname": "Odd", "instance": "10.9.9.9:1"}
    answer = await posting(notification(cache, cache, {"evenkeel_resource": "db"}, unknown))
    assert answer.status_code == 200
    assert answer.json() == {"looked_at": ["cache", "db"], "already": [], "dropped": [], "unknown": 1}
    receiver = posting.receiver
    looks = receiver.watching.look
    assert isinstance(looks, Looks)
    assert looks.seen == [(["cache", "db"], "alert Full")]
    assert "about no resource of unit: alertname=Odd, instance=10.9.9.9:1" in caplog.text
    assert (await posting(notification(unknown))).json()["unknown"] == 1
    assert (receiver.alerts, receiver.unmatched) == (5, 2)
    assert receiver.unmatched_labels == {"alertname=Odd, instance=10.9.9.9:1": 2}
    resolved = await posting(notification(cache, unknown, status="resolved"))
    assert resolved.json() == {"looked_at": [], "already": [], "dropped": [], "unknown": 0}
    assert (len(looks.seen), receiver.alerts) == (1, 5)


async def test_whoever_has_no_token_is_turned_away_unheard(posting: Posting) -> None:
    for token in (None, "wrong", TOKEN[:-1], TOKEN + "x"):
        answer = await posting(b"{}", token)
        assert answer.status_code == 401
        assert "authorization" in answer.json()["error"]
        assert TOKEN not in answer.text
    for header in ("Bearer", "", TOKEN, f"Basic {TOKEN}", "Bearer \u00fc"):
        answer = await posting.http.post(posting.url, headers=[(b"authorization", header.encode())])
        assert answer.status_code == 401
    assert posting.receiver.watching.looks == 0


async def test_what_is_no_notification_is_refused_with_the_field(posting: Posting) -> None:
    refused = {b"": "body", b"[]": "body", b'{"version": "4"}': "alerts: is missing", b'{"version": "5", "alerts": []}': "version"}
    for body, said in refused.items():
        answer = await posting(body)
        assert (answer.status_code, said in answer.json()["error"]) == (400, True)
    assert (await posting(b"x" * (MAX_BODY_BYTES + 1))).status_code == 413
    assert (await posting.http.get(posting.url)).status_code == 405
    assert (await posting.http.post(posting.url.replace("/alerts", "/"))).status_code == 404
    assert (await posting(notification({"evenkeel_resource": "db"}))).status_code == 200


async def test_too_many_are_told_when_to_come_again(posting: Posting) -> None:
    statuses = []
    for name in ("cache", "db", "api"):
        answer = await posting(notification({"evenkeel_resource": name}))
        await posting.receiver.watching.drained()
        statuses.append(answer.status_code)
    assert statuses == [200, 200, 429]
    assert answer.json()["dropped"] == ["api"]
    assert int(answer.headers["retry-after"]) > 0
    assert "too many to look at api" in answer.json()["error"]


async def test_an_address_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.alerts.BIND_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        receiver = Receiver(SHOP, SecretStr(TOKEN), watching(Looks()), logger=LOGGER)
        with pytest.raises(CannotListen, match=f"alerts.listen: 127.0.0.1:{port}"):
            async with receiving(receiver, f"127.0.0.1:{port}"):
                pass
