"""The restart of an HTTP service, on a real Nginx under the lab's supervisor."""

from collections.abc import AsyncIterator

import httpx
import psutil
import pytest

from blocks.schema import Kind, Resource
from compose.description import LabDescription
from tasks.clients.runtime import SupervisedProcess
from tasks.clients.web import WebClient
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.tools.web import http_restart


@pytest.fixture
async def client(fresh_web: LabDescription) -> AsyncIterator[WebClient]:
    runtime = SupervisedProcess(str(fresh_web.control), "web")
    if (await runtime.status()).state != "running":
        await runtime.start()
    async with httpx.AsyncClient(trust_env=False) as http:
        yield WebClient(http, Resource(name="page", kind=Kind.HTTP, address=fresh_web.web.url), runtime)


async def pid_of(client: WebClient) -> int:
    assert client.runtime is not None
    pid = (await client.runtime.status()).pid
    assert pid is not None
    return pid


async def test_a_restart_gives_a_new_process_that_answers(client: WebClient) -> None:
    pid = await pid_of(client)

    change = await http_restart(client, NoArgs())

    assert not psutil.pid_exists(pid)
    assert change.before == {"state": "running", "pid": pid}
    assert change.after == {"state": "running", "pid": await pid_of(client), "status_code": 200}
    async with httpx.AsyncClient(trust_env=False) as visitor:
        assert (await visitor.get(client.resource.address)).status_code == 200


async def test_a_service_that_is_down_is_started(client: WebClient) -> None:
    assert client.runtime is not None
    await client.runtime.stop()

    change = await http_restart(client, NoArgs())

    assert change.before == {"state": "stopped", "pid": None}
    async with httpx.AsyncClient(trust_env=False) as visitor:
        assert (await visitor.get(client.resource.address)).status_code == 200


async def test_an_address_that_never_answers_is_a_failure(client: WebClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tools.web.ANSWER_SECONDS", 0.3)
    elsewhere = client.resource.model_copy(update={"address": "http://127.0.0.1:1/"})

    with pytest.raises(ToolFailed, match="no answer"):
        await http_restart(WebClient(client.http, elsewhere, client.runtime), NoArgs())


async def test_without_a_runtime_or_its_supervisor_nothing_is_done(client: WebClient, fresh_web: LabDescription) -> None:
    pid = await pid_of(client)
    nobody = SupervisedProcess(str(fresh_web.directory / "nobody"), "web")

    with pytest.raises(NotApplicable, match="add `runtime:`"):
        await http_restart(WebClient(client.http, client.resource), NoArgs())
    with pytest.raises(Unreachable, match="no supervisor"):
        await http_restart(WebClient(client.http, client.resource, nobody), NoArgs())

    assert await pid_of(client) == pid
