"""Vertex AI: the same protocol with a token that a service account's key is exchanged for, over real sockets."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks.gemini_settings import Vertex
from compose.gemini_server import GeminiServer
from compose.gemini_wire import Answer, in_turn
from tasks.core.models import Context
from tasks.planners.gemini_client import GeminiAccess, GeminiClient
from tests.tasks.planners.conftest import OpenDesk, answer

VERTEX = Vertex(project="my-project", location="europe-west1")


@pytest.fixture(scope="module")
def private_key() -> str:
    """A key of a service account that nobody has."""
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(*pem).decode()


class TokenServer(GeminiServer):
    """Gives the token for a signed assertion; whatever is asked."""

    def __init__(self, answered: Answer) -> None:
        super().__init__(lambda _request: answered)
        self.answered = answered
        self.asked = 0

    def _chosen(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> tuple[Answer, int]:
        self.asked += 1
        assert b"assertion=" in raw
        return self.answered, 0


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer(Answer({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"})) as server:
        yield server


def key_file(tokens: TokenServer, private_key: str) -> str:
    fields: dict[str, Any] = {"type": "service_account", "client_email": "evenkeel@my-project.iam.gserviceaccount.com"}
    return json.dumps({**fields, "private_key": private_key, "token_uri": f"{tokens.url}/token"})


async def _plan(desk: OpenDesk, context: Context, access: GeminiAccess) -> tuple[Any, list[Any]]:
    async with desk(in_turn(answer()), vertex=VERTEX) as opened:
        opened.clients.append(GeminiClient(opened.settings, access))
        plan = await opened.plan(context)
        await opened.plan(context)
        return plan, opened.server.requests


async def test_a_service_account_plans(desk: OpenDesk, context: Context, tokens: TokenServer, private_key: str) -> None:
    plan, requests = await _plan(desk, context, GeminiAccess(service_account=key_file(tokens, private_key)))
    assert (plan.planner, plan.notes) == ("gemini:gemini-2.5-flash", ())
    assert (
        requests[0].path == "/v1beta1/projects/my-project/locations/europe-west1/publishers/google/models/gemini-2.5-flash:generateContent"
    )
    assert requests[0].headers["authorization"] == "Bearer a-token"
    assert "x-goog-api-key" not in requests[0].headers
    assert tokens.asked == 1


async def test_a_refused_service_account_leaves_it_to_the_runbooks(
    desk: OpenDesk, context: Context, tokens: TokenServer, private_key: str
) -> None:
    tokens.answered = Answer({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400)
    access = GeminiAccess(service_account=key_file(tokens, private_key))
    plan, requests = await _plan(desk, context, access)
    assert not requests
    assert plan.planner.startswith("runbook:")
    assert "credentials of Google Cloud are refused or missing" in plan.notes[-1]
    assert private_key.splitlines()[1] not in plan.model_dump_json() + repr(access)
