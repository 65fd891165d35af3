"""A server that speaks Gemini's wire protocol and answers by a script: for tests, and by hand for a try-out without a key.

    python -m compose.gemini_server --port 8090
    GEMINI_API_KEY=try-out GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8090 make demo

It is written on plain sockets, because it must also do what no HTTP library lets a server do: end in the middle of an answer.
"""

import argparse
import asyncio
import contextlib
import json
import math
import socket
import struct
import sys
from http import HTTPStatus
from types import TracebackType
from typing import Self

from compose.cli import run_until_done
from compose.description import HOST, LabError
from compose.gemini_scripts import SCRIPTS
from compose.gemini_wire import CHARACTERS_A_TOKEN, PATH, Answer, Request, Script, refusal
from compose.progress import console, say

MAX_HEAD_BYTES = 64 * 1024
DEFAULT_PORT = 8090


class GeminiServer:
    """`async with GeminiServer(script) as server:` listens; `server.url` is the base URL for clients, `server.requests` what came."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on; another one each time unless it was given."""
        return self._port

    def forget(self) -> None:
        """Forget what was asked, so that the script begins anew."""
        self.requests.clear()

    async def __aenter__(self) -> Self:
        """Listen. LabError where the port is taken."""
        try:
            self._server = await asyncio.start_server(self._connected, HOST, self._port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            raise LabError(f"port {self._port}: can't listen on it ({error.strerror}); choose another with --port") from error
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening and end every connection, also those that hang."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._connections.add(this)
        try:
            # A client that goes away, in whatever way, is part of the play. Only __aexit__ cancels, and it waits for the end;
            # asyncio would report a connection that ends as cancelled as an error.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answered(reader, writer):
                    pass
        finally:
            self._connections.discard(this)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection is still of use."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        answer, tokens = self._chosen(method, path, headers, raw)
        if math.isinf(answer.wait_seconds):
            await reader.read()  # ends when the client has gone
            return False
        await asyncio.sleep(answer.wait_seconds)
        return await _sent(writer, answer, tokens)

    def _chosen(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> tuple[Answer, int]:
        found = PATH.match(path.partition("?")[0])
        if method != "POST" or found is None or found["method"] != "generateContent":
            return refusal(404, "NOT_FOUND", f"{method} {path}: only generateContent is spoken here"), 0
        try:
            body = json.loads(raw)
        except ValueError:
            return refusal(400, "INVALID_ARGUMENT", "the request is no JSON"), 0
        request = Request(len(self.requests), path, headers, body)
        self.requests.append(request)
        return self.script(request), request.tokens


async def _sent(writer: asyncio.StreamWriter, answer: Answer, tokens: int) -> bool:
    payload = _payload(answer, tokens)
    headers = {"content-type": "application/json; charset=UTF-8", **answer.headers, "content-length": str(len(payload))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{lines}\r\n".encode("latin-1")
    if answer.reset_after_bytes is not None:
        writer.write((head + payload)[: answer.reset_after_bytes])
        await writer.drain()
        # Without lingering, closing sends RST where a FIN would go.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    if answer.byte_every_seconds is None:
        writer.write(head + payload)
        await writer.drain()
        return True
    writer.write(head)
    for byte in payload:
        await asyncio.sleep(answer.byte_every_seconds)
        writer.write(bytes([byte]))
        await writer.drain()
    return True


def _payload(answer: Answer, tokens: int) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    body = answer.body
    if isinstance(body, dict) and "candidates" in body and "usageMetadata" not in body:
        said = math.ceil(len(json.dumps(body["candidates"])) / CHARACTERS_A_TOKEN)
        body = {**body, "usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": said, "totalTokenCount": tokens + said}}
    return json.dumps(body).encode()


def aloud(script: Script) -> Script:
    """The same script, and a line about each request."""

    def speaking(request: Request) -> Answer:
        answer = script(request)
        asked = "a plan" if request.schema is not None else f"what to read next ({', '.join(request.functions) or 'nothing offered'})"
        say(f"request {request.number + 1} to {request.model}, {request.tokens} tokens, asks for {asked}; answered {answer.status}")
        return answer

    return speaking


async def serve(port: int, script: str) -> int:
    """Answer until Ctrl-C."""
    async with GeminiServer(aloud(SCRIPTS[script]), port) as server:
        console.print(
            f"A scripted Gemini ({script}) listens on {server.url}; plan with it by\n"
            f"  GEMINI_API_KEY=try-out GOOGLE_GEMINI_BASE_URL={server.url} make demo\n"
            "Ctrl-C ends it."
        )
        await asyncio.Event().wait()
    return 0


def main() -> int:
    """Entry point of `python -m compose.gemini_server`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="where to listen on 127.0.0.1; 0: any free port")
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="sensible", help="how to answer")
    arguments = parser.parse_args()
    return run_until_done(serve(arguments.port, arguments.script))


if __name__ == "__main__":
    sys.exit(main())
