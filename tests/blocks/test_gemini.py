"""Gemini in an inventory file or in the environment, saved in a real Prefect server."""

import json
import uuid
from collections.abc import Mapping

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from blocks.documents import read
from blocks.errors import ConfigurationError
from blocks.gemini import GeminiBlock, load_gemini
from blocks.gemini_section import Gemini
from blocks.gemini_settings import GeminiSettings, Vertex
from blocks.inventory_file import parse_inventory
from blocks.register import Saved, register

KEY = "AIza-a-key-that-nobody-may-see"
KEY_FILE = json.dumps(
    {"client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----", "token_uri": "https://oauth2.googleapis.com/token"}
)
ENVIRONMENT = {"GEMINI_API_KEY": KEY, "KEY_FILE": KEY_FILE, "BROKEN": "two words", "EMPTY": ""}


def text(section: str = "", name: str = "shop") -> str:
    return f"name: {name}\nresources:\n  - {{name: api, kind: http, address: 'http://127.0.0.1:1/'}}\n{section}"


def parsed(section: str = "", environment: Mapping[str, str] = ENVIRONMENT) -> Gemini | None:
    return parse_inventory(text(section), environment).gemini


def problems(section: str, environment: Mapping[str, str] = ENVIRONMENT) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parsed(section, environment)
    assert KEY not in str(caught.value)
    return caught.value.problems


def test_without_a_section_the_environment_decides() -> None:
    assert parsed(environment={}) is None
    found = parsed()
    assert found is not None
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == KEY
    assert found.settings == GeminiSettings()
    assert KEY not in repr(found)


@pytest.mark.parametrize("name", ["GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"])
def test_address_and_model_of_the_environment(name: str) -> None:
    found = parsed(environment={**ENVIRONMENT, name: "http://127.0.0.1:8090", "GEMINI_MODEL": "gemini-3-pro"})
    assert found is not None
    assert (found.base_url, found.model) == ("http://127.0.0.1:8090", "gemini-3-pro")
    keyless = parsed(environment={name: "http://127.0.0.1:8090"})
    assert keyless is not None
    assert keyless.api_key is None


def test_a_section_goes_before_the_environment() -> None:
    found = parsed('gemini: {api_key: "${GEMINI_API_KEY}", total_seconds: 20, dollars_per_day: 1}', {**ENVIRONMENT, "GEMINI_MODEL": "x"})
    assert found is not None
    assert (found.model, found.total_seconds, found.dollars_per_day) == ("gemini-2.5-flash", 20, 1)
    assert parsed("gemini: null") is None


def test_vertex_takes_a_service_account_or_the_machines_own() -> None:
    found = parsed('gemini: {vertex: {project: p, location: europe-west1}, service_account: "${KEY_FILE}"}')
    assert found is not None
    assert found.settings.vertex == Vertex(project="p", location="europe-west1")
    assert found.service_account is not None
    assert found.service_account.get_secret_value() == KEY_FILE
    own = parsed("gemini: {vertex: {project: p}}")
    assert own is not None
    assert (own.api_key, own.service_account, own.vertex) == (None, None, Vertex(project="p", location="global"))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("gemini: {}", "line 4: gemini: api_key: is missing; write api_key: ${GEMINI_API_KEY}"),
        ("gemini: yes", "line 4: gemini: "),
        (f"gemini: {{api_key: {KEY}}}", "line 4: gemini.api_key: a secret in plain text; write ${GEMINI_API_KEY} here"),
        ('gemini: {api_key: "${EMPTY}"}', "line 4: gemini.api_key: the environment variable EMPTY is empty"),
        ('gemini: {api_key: "${BROKEN}"}', "api_key: the variable holds a space or a character that no key has"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", modell: x}', "gemini.modell: no such field; did you mean 'model'?"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", total_seconds: 0}', "line 4: gemini.total_seconds: "),
        ('gemini: {api_key: "${GEMINI_API_KEY}", vertex: {project: p}}', "api_key: Vertex AI is reached with a service account"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", service_account: "${KEY_FILE}"}', "service_account: belongs to Vertex AI"),
        ('gemini: {vertex: {project: p}, service_account: "${GEMINI_API_KEY}"}', "must hold the JSON of a service account's key file"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", base_url: "http://example.com"}', "base_url: write https://HOST"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", base_url: "https://u:p@example.com"}', "base_url: an address holds no login"),
        ('gemini: {api_key: "${GEMINI_API_KEY}", base_url: "https://${HOST}"}', "base_url: write https://HOST"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(section: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(section)), problems(section)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GEMINI_API_KEY": "two words"}, "environment: GEMINI_API_KEY: the variable holds a space"),
        (
            {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": "http://example.com"},
            "environment: GEMINI_BASE_URL or GOOGLE_GEMINI_BASE_URL: write https",
        ),
        ({"GEMINI_API_KEY": KEY, "GEMINI_MODEL": "a b"}, "environment: GEMINI_MODEL: "),
    ],
)
def test_what_is_wrong_with_the_environment_is_named_by_its_variable(environment: dict[str, str], expected: str) -> None:
    (problem,) = problems("", environment)
    assert problem.startswith(expected)


@pytest.mark.usefixtures("prefect_server")
async def test_it_is_saved_loaded_and_forgotten_with_the_inventory() -> None:
    name = f"shop-{uuid.uuid4().hex[:12]}"
    assert await load_gemini(name) is None
    await register(parse_inventory(text("gemini: {api_key: '${GEMINI_API_KEY}', dollars_per_day: 2}", name), ENVIRONMENT))
    found = await load_gemini(name)
    assert found is not None
    assert found.settings == GeminiSettings(dollars_per_day=2)
    assert found.api_key is not None
    assert found.api_key.get_secret_value() == KEY
    assert found.service_account is None
    async with get_client() as client:
        block_type = await client.read_block_type_by_slug(GeminiBlock.get_block_type_slug())
        shown = await client.read_block_documents_by_type(block_type.slug, include_secrets=False)
    assert KEY not in repr([document.data for document in shown])
    again = await register(parse_inventory(text("gemini: {api_key: '${GEMINI_API_KEY}', dollars_per_day: 2}", name), ENVIRONMENT))
    assert again.written == 0
    gone = await register(parse_inventory(text("", name), {}))
    assert gone == Saved(written=0, deleted=1)
    assert await load_gemini(name) is None


@pytest.mark.usefixtures("prefect_server")
async def test_a_block_that_was_edited_into_nonsense_says_where() -> None:
    name = f"shop-{uuid.uuid4().hex[:12]}"
    await register(parse_inventory(text("", name), ENVIRONMENT))
    async with get_client() as client:
        document = (await read(client, GeminiBlock, [name]))[name]
        data = {**document.data, "settings": {**document.data["settings"], "total_seconds": -1}}
        await client.update_block_document(document.id, BlockDocumentUpdate(data=data, merge_existing_data=False))
    with pytest.raises(ConfigurationError, match=r"settings\.total_seconds.*edit the Evenkeel Gemini block"):
        await load_gemini(name)
