"""The scripted server, by requests of plain sockets, of httpx and of the unmodified google-genai client."""

import asyncio
import json
import math
import re
import socket
import sys
import time
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types

from compose.description import LabError
from compose.gemini_scripts import SCRIPTS
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, Request, blocked, calling, in_turn, refusal, said, silent, structured

PATH = "/v1beta/models/gemini-test:generateContent"
VERTEX_PATH = "/v1beta1/projects/p/locations/l/publishers/google/models/gemini-test:generateContent"
HELLO: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


def client(server: GeminiServer, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, trust_env=False, **options)


async def generated(server: GeminiServer, **config: Any) -> types.GenerateContentResponse:
    async with httpx.AsyncClient(trust_env=False) as http:
        options = types.HttpOptions(base_url=server.url, api_version="v1beta", httpx_async_client=http)
        sdk = genai.Client(api_key="try-out", http_options=options)
        try:
            return await sdk.aio.models.generate_content(
                model="gemini-test", contents="hello", config=types.GenerateContentConfig(system_instruction="be brief", **config)
            )
        finally:
            await sdk.aio.aclose()
            sdk.close()


async def test_the_unmodified_client_understands_text_and_usage() -> None:
    async with GeminiServer(in_turn(said("well"))) as server:
        answer = await generated(server)
    assert answer.text == "well"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == server.requests[0].tokens > 0
    assert answer.usage_metadata.candidates_token_count


async def test_the_request_is_read_whether_in_snake_or_camel_case() -> None:
    schema = {"type": "object", "properties": {"snake_name": {"type": "string"}}}
    declared = types.FunctionDeclaration(name="look", description="Look.", parameters_json_schema=schema)
    async with GeminiServer(in_turn(structured({"snake_name": "x"}))) as server:
        await generated(server, response_mime_type="application/json", response_json_schema=schema)
        await generated(server, tools=[types.Tool(function_declarations=[declared])])
    asked, looking = server.requests
    assert (asked.number, asked.model, asked.schema, asked.functions) == (0, "gemini-test", schema, ())
    assert (looking.number, looking.schema, looking.functions) == (1, None, ("look",))
    assert asked.text.split("\n") == ["be brief", "hello"]
    assert asked.headers["x-goog-api-key"] == "try-out"
    assert "try-out" in asked.whole
    snake = Request(0, PATH, {}, {"generation_config": {"response_json_schema": schema}, "system_instruction": {"parts": [{"text": "a"}]}})
    assert (snake.schema, snake.text) == (schema, "a")


async def test_function_calls_come_with_a_signature_and_what_they_gave_is_read() -> None:
    async with GeminiServer(in_turn(calling(("look", {"at": "memory"})))) as server:
        answer = await generated(server)
        assert answer.candidates
        assert answer.candidates[0].content
        assert answer.candidates[0].content.parts
        part = answer.candidates[0].content.parts[0]
        assert part.function_call is not None
        assert (part.function_call.name, part.function_call.args) == ("look", {"at": "memory"})
        assert part.thought_signature
        given = {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"percent": 96}}}]}
        async with client(server) as http:
            await http.post(PATH, json={"contents": [*HELLO["contents"], given]})
    assert server.requests[1].function_responses == ({"name": "look", "response": {"percent": 96}},)


async def test_an_empty_and_a_blocked_answer_raise_nothing_in_the_client() -> None:
    async with GeminiServer(in_turn(silent("SAFETY"), blocked("PROHIBITED_CONTENT"), Answer({}))) as server:
        answers = [await generated(server) for _ in range(3)]
    assert [answer.text for answer in answers] == [None, None, None]
    assert answers[1].prompt_feedback is not None


async def test_an_error_carries_its_retry_info() -> None:
    async with GeminiServer(in_turn(refusal(429, "RESOURCE_EXHAUSTED", "slow down", 1.5))) as server, client(server) as http:
        response = await http.post(PATH, json=HELLO)
    assert response.status_code == 429
    assert response.json()["error"]["details"][0]["retryDelay"] == "1.5s"


@pytest.mark.parametrize("path", [VERTEX_PATH, f"{VERTEX_PATH}?alt=json", PATH.replace("v1beta", "v1")])
async def test_the_paths_of_vertex_and_of_v1_are_spoken(path: str) -> None:
    async with GeminiServer(in_turn(said("well"))) as server, client(server) as http:
        assert (await http.post(path, json=HELLO)).is_success
    assert server.requests[0].model == "gemini-test"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", PATH, b"", 404),
        ("POST", "/v1beta/models/gemini-test:streamGenerateContent", b"{}", 404),
        ("POST", "/elsewhere", b"{}", 404),
        ("POST", PATH, b"{", 400),
    ],
)
async def test_what_is_not_spoken_is_refused_and_not_recorded(method: str, path: str, content: bytes, status: int) -> None:
    async with GeminiServer(in_turn(said("well"))) as server, client(server) as http:
        assert (await http.request(method, path, content=content)).status_code == status
    assert server.requests == []


async def test_answers_come_in_turn_and_begin_anew_when_it_forgets() -> None:
    async with GeminiServer(in_turn(said("one"), said("two"))) as server, client(server) as http:

        async def text() -> str:
            body = (await http.post(PATH, json=HELLO)).json()
            return str(body["candidates"][0]["content"]["parts"][0]["text"])

        assert [await text(), await text(), await text()] == ["one", "two", "two"]
        server.forget()
        assert await text() == "one"


async def test_a_body_may_be_anything_and_its_usage_may_be_given() -> None:
    page = Answer(b"<html>", headers={"content-type": "text/html"})
    async with GeminiServer(in_turn(page, said("x", promptTokenCount=7))) as server, client(server) as http:
        response = await http.post(PATH, json=HELLO)
        assert (response.text, response.headers["content-type"]) == ("<html>", "text/html")
        assert (await http.post(PATH, json=HELLO)).json()["usageMetadata"] == {"promptTokenCount": 7}


async def test_it_hangs_and_goes_on_with_others() -> None:
    async with GeminiServer(in_turn(Answer({}, wait_seconds=math.inf), said("well"))) as server, client(server, timeout=0.2) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(PATH, json=HELLO)
        assert (await http.post(PATH, json=HELLO)).is_success


async def test_a_trickle_never_times_out_for_a_reader() -> None:
    async with GeminiServer(in_turn(Answer(b" " * 1000, byte_every_seconds=0.02))) as server, client(server, timeout=0.2) as http:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await http.post(PATH, json=HELLO)
        assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize(("sent_bytes", "error"), [(0, httpx.ReadError), (90, httpx.ReadError)])
async def test_a_connection_is_reset(sent_bytes: int, error: type[Exception]) -> None:
    async with GeminiServer(in_turn(Answer(b"x" * 500, reset_after_bytes=sent_bytes))) as server, client(server) as http:
        with pytest.raises(error):
            await http.post(PATH, json=HELLO)


async def test_it_leaves_nothing_open() -> None:
    asked = asyncio.Event()

    def hang(_request: Request) -> Answer:
        asked.set()
        return Answer({}, wait_seconds=math.inf)

    async with GeminiServer(hang) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps(HELLO).encode()
        writer.write(f"POST {PATH} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        idle = await asyncio.open_connection("127.0.0.1", server.port)
        await asked.wait()
        port = server.port
    assert await reader.read() == b""
    for writer_ in (writer, idle[1]):
        writer_.close()
        await writer_.wait_closed()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
    async with GeminiServer(in_turn(said("again")), port) as server:
        assert server.port == port


async def test_a_port_that_is_taken_is_named() -> None:
    async with GeminiServer(in_turn(said("well"))) as server:
        with pytest.raises(LabError, match=f"port {server.port}: .*--port"):
            async with GeminiServer(in_turn(said("well")), server.port):
                pass


FIGURES = {
    "redis_set_maxmemory": ('{"used_memory_mib": 62.1, "maxmemory_mib": 64.0}', {"mebibytes": 96}),
    "postgres_kill_long_queries": (
        (
            '{"connections_max": 100, "top_sessions": [{"application_name": "reports", "user": "shop", "state": "active", '
            '"query": "SELECT ?", "count": 86, "youngest_seconds": 2.5}]}'
        ),
        {"min_seconds": 1, "application_name": "reports", "user": "shop", "query": "SELECT ?"},
    ),
    "nginx_scale_connections": ('{"connections_percent": 93.8, "worker_connections": 256}', {"worker_connections": 512}),
}


def asked(tool: str, text: str) -> Request:
    call = {"properties": {"tool": {"enum": [tool]}}}
    schema = {"properties": {"steps": {"items": {"anyOf": [call]}}}}
    body = {"contents": [{"parts": [{"text": text}]}], "generationConfig": {"responseJsonSchema": schema}}
    return Request(0, PATH, {}, body)


def plan_in(answer: Answer) -> dict[str, Any]:
    assert isinstance(answer.body, dict)
    plan: dict[str, Any] = json.loads(answer.body["candidates"][0]["content"]["parts"][0]["text"])
    return plan


@pytest.mark.parametrize("tool", FIGURES)
def test_the_sensible_script_remedies_the_labs_faults(tool: str) -> None:
    text, args = FIGURES[tool]
    plan = plan_in(SCRIPTS["sensible"](asked(tool, f"reading: {text}")))
    assert (plan["decision"], [(step["tool"], step["args"]) for step in plan["steps"]]) == ("act", [(tool, args)])


@pytest.mark.parametrize("tool", [*FIGURES, "http_restart"])
def test_the_sensible_script_escalates_what_it_does_not_know(tool: str) -> None:
    plan = plan_in(SCRIPTS["sensible"](asked(tool, "nothing is known")))
    assert (plan["decision"], plan["steps"]) == ("escalate", [])


def test_the_sensible_script_reads_nothing_more() -> None:
    answer = SCRIPTS["sensible"](Request(0, PATH, {}, HELLO))
    assert isinstance(answer.body, dict)
    assert answer.body["candidates"][0]["content"]["parts"][0]["functionCall"]["name"] == "done"


async def test_it_runs_by_hand_and_ends_with_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "compose.gemini_server", "--port", "0", "--script", "overloaded", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            said_first = (await process.stdout.readline()).decode()
            found = re.search(r"http://\S+:\d+", said_first)
            assert found is not None, said_first
            async with httpx.AsyncClient(base_url=found[0], trust_env=False) as http:
                assert (await http.post(PATH, json=HELLO)).status_code == 503
            process.terminate()
            rest = (await process.stdout.read()).decode()
            assert "request 1 to gemini-test" in rest
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
