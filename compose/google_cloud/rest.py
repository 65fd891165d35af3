"""The REST APIs: every request is let in, faulted, checked, answered and checked again, in this order."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

import compose.google_cloud.accounts
import compose.google_cloud.cloud_sql
import compose.google_cloud.places  # noqa: F401 - importing declares what is served
from compose.google_cloud.access import GrantRefused, Identity
from compose.google_cloud.discovery import Method, Router
from compose.google_cloud.faults import Faults, LineCut, forbids, suffer
from compose.google_cloud.journal import Journal, Mutation
from compose.google_cloud.memorystore import numbered
from compose.google_cloud.project import Project
from compose.google_cloud.refusals import Refused, denied
from compose.google_cloud.schema import Checker
from compose.google_cloud.serving import SERVED, Call, JsonObject, resource_of

TOKEN_METHOD = "oauth2.token"  # noqa: S105 - a method's name
NUMERIC = "json;enum-encoding=int"
LENIENT_AGENTS = ("google-cloud-sdk", "gcloud")
"""gcloud sends what the documents don't know; it is no client of ours, so that is not written down."""


class RestApis:
    """An ASGI application that is all of `*.googleapis.com` that is REST. `cut` ends the line on which a client's port is."""

    def __init__(self, project: Project, journal: Journal, faults: Faults, cut: Callable[[int], None]) -> None:
        self._project = project
        self._journal = journal
        self._faults = faults
        self._cut = cut
        self._router = Router(frozenset(SERVED))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as long as the client waits for it."""
        request = Request(scope, receive)
        answering = asyncio.create_task(self._answered(request, await request.body()))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering.result()(scope, receive, send)
        except LineCut:
            self._cut(scope["client"][1])
            await leaving
        finally:
            answering.cancel()
            leaving.cancel()

    async def _answered(self, request: Request, raw: bytes) -> Response:
        host, path = request.headers.get("host", "").split(":")[0], request.scope["raw_path"].decode("ascii")
        api = host.split(".")[0]
        try:
            if (host, path) == ("oauth2.googleapis.com", "/token"):
                return await self._token(raw)
            return await self._called(request, host, *self._found(host, request.method, path), raw)
        except Refused as refusal:
            return JSONResponse(refusal.body(api), refusal.status, refusal.headers)

    def _found(self, host: str, verb: str, path: str) -> tuple[Method, dict[str, str]]:
        found = self._router.find(host, verb, path)
        if found is None:
            self._journal.blame("request", f"{verb} {host}{path}", ["no document knows this path"])
            raise Refused(404, f"Not found: {path}")
        return found

    async def _token(self, raw: bytes) -> Response:
        """The token endpoint of OAuth 2: an assertion that a service account signed, for a token."""
        self._journal.count(TOKEN_METHOD)
        for fault in self._faults.meeting(TOKEN_METHOD, "token", "token"):
            await suffer(fault)
        form = {name: values[0] for name, values in parse_qs(raw.decode("utf-8")).items()}
        try:
            return JSONResponse(self._project.access.exchange(form.get("grant_type", ""), form.get("assertion", "")))
        except GrantRefused as refusal:
            return JSONResponse({"error": refusal.error, "error_description": refusal.description}, 400)

    async def _called(self, request: Request, host: str, method: Method, path: dict[str, str], raw: bytes) -> Response:
        self._journal.count(method.id)
        identity = self._project.access.caller(request.headers.get("authorization", ""), host)
        query = parse_qs(request.url.query, keep_blank_values=True)
        faults = self._faults.meeting(method.id, _target(path), identity.described.name)
        mutation = self._noted(method, path, query, identity)
        numeric = query.get("$alt") == [NUMERIC]
        try:
            for fault in faults:
                if not fault.takes_effect:
                    await suffer(fault)
            body = self._checked(request, Checker(method, sending=True, numeric_enums=numeric), path, query, raw)
            plain = {name: values[-1] for name, values in query.items()}
            answer = await self._carried_out(Call(method, path, plain, body, identity, faults, mutation))
        except (Refused, LineCut) as error:
            if mutation is not None:
                mutation.outcome = f"refused {error.status}" if isinstance(error, Refused) else "cut"
            raise
        self._journal.blame("answer", method.id, Checker(method, sending=False).body(method.response, answer))
        for fault in faults:
            if fault.takes_effect:
                await suffer(fault)
        return JSONResponse(numbered(answer) if numeric else answer)

    def _noted(self, method: Method, path: dict[str, str], query: dict[str, list[str]], identity: Identity) -> Mutation | None:
        served = SERVED.get(method.id)
        if served is None or not served.mutates:
            return None
        mutation = Mutation(method.id, _target(path), identity.described.name, query.get("requestId", [None])[0])
        self._journal.mutations.append(mutation)
        return mutation

    def _checked(self, request: Request, checker: Checker, path: dict[str, str], query: dict[str, list[str]], raw: bytes) -> JsonObject:
        """The body, where everything about the request is as the document says; else Refused, and violations are written down."""
        body: Any = None
        problems = checker.parameters(path, query)
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                problems.append("body: no JSON")
        if not (body is None and raw):
            # Google takes an empty body for one without fields.
            problems += checker.body(checker.method.request, {} if body is None and checker.method.request else body)
        if request.headers.get("user-agent", "").startswith(LENIENT_AGENTS):
            return body if isinstance(body, dict) else {}
        if problems:
            self._journal.blame("request", checker.method.id, problems)
            raise Refused(400, f"Invalid request: {'; '.join(problems)}")
        served = SERVED.get(checker.method.id)
        ignored = [] if served is None else sorted(set(query) - served.query)
        self._journal.blame("request", checker.method.id, [f"parameter {name}: the simulator does not honour it" for name in ignored])
        return body if isinstance(body, dict) else {}

    async def _carried_out(self, call: Call) -> JsonObject:
        """The method's own answer, where the caller may have it."""
        method, api = call.method.id, call.method.document.name
        served = SERVED.get(method)
        if served is None:
            self._journal.blame("request", method, ["the simulator does not serve this method"])
            raise Refused(501, f"{method} is not simulated")
        if call.resource.split("/")[1] not in {self._project.id, "-"}:
            raise denied(api, served.permission or method, call.resource)
        if served.permission is not None:
            if forbids(call.faults, served.permission):
                raise denied(api, served.permission, call.resource)
            self._project.access.require(call.identity, api, served.permission, call.resource)
        return await served.answer(self._project, call)


def _target(path: dict[str, str]) -> str:
    """The name that faults are aimed at: the instance's where there is one."""
    return path.get("instance") or resource_of(path).rsplit("/", 1)[-1]


async def _left(receive: Receive) -> None:
    """Ends when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
