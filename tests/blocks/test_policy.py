"""The rules of an inventory as a block of their own, which a person may edit, in a real Prefect server."""

import uuid
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL

from blocks.errors import ConfigurationError
from blocks.inventory import load_inventory
from blocks.inventory_file import parse_inventory
from blocks.policy import PolicyBlock
from blocks.register import register
from blocks.schema import Autonomy, Risk

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
async def name() -> str:
    """A registered inventory with rules."""
    name = f"ruled-{uuid.uuid4().hex[:12]}"
    await register(parse_inventory(text(name), {}))
    return name


def text(name: str, rules: str = "{autonomy: approve, autonomy_of_risk: {destructive: propose}, max_steps: 3}") -> str:
    return f"name: {name}\nrules: {rules}\nresources: [{{name: api, kind: http, address: 'http://127.0.0.1:1/'}}]\n"


async def saved(name: str) -> dict[str, Any]:
    """The policy's document, asked of the server's API over plain HTTP."""
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.get(f"/block_types/slug/evenkeel-policy/block_documents/name/{name}")
    document: dict[str, Any] = answer.raise_for_status().json()
    return document


async def edit(name: str, **rules: Any) -> None:
    """Change rules as the form in the UI does."""
    document = await saved(name)
    data = {"rules": document["data"]["rules"] | rules}
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.patch(f"/block_documents/{document['id']}", json={"data": data, "merge_existing_data": False})
    answer.raise_for_status()


async def test_the_rules_of_the_file_are_the_policy(name: str) -> None:
    rules = (await saved(name))["data"]["rules"]
    assert (rules["autonomy"], rules["autonomy_of_risk"], rules["max_steps"]) == ("approve", {"destructive": "propose"}, 3)
    loaded = (await load_inventory(name)).rules
    assert (loaded.autonomy, loaded.autonomy_of_risk, loaded.max_steps) == (Autonomy.APPROVE, {Risk.DESTRUCTIVE: Autonomy.PROPOSE}, 3)


async def test_what_is_edited_counts_until_the_file_is_registered_again(name: str) -> None:
    await edit(name, autonomy="observe", cooldown_seconds=60)
    rules = (await load_inventory(name)).rules
    assert (rules.autonomy, rules.cooldown_seconds, rules.max_steps) == (Autonomy.OBSERVE, 60, 3)
    assert (await register(parse_inventory(text(name), {}))).written == 1
    assert (await load_inventory(name)).rules.autonomy is Autonomy.APPROVE


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"max_steps": 0}, "rules.max_steps: Input should be greater than or equal to 1"),
        ({"autonomy": "all"}, "rules.autonomy: Input should be 'observe', 'propose', 'approve' or 'auto'"),
        ({"autonomy_of_risk": {"gigantic": "auto"}}, "rules.autonomy_of_risk.gigantic"),
        ({"max_step": 3}, "rules.max_step: Extra inputs are not permitted"),
    ],
)
async def test_an_invalid_edit_names_its_field_and_the_remedy(name: str, rules: dict[str, Any], said: str) -> None:
    await edit(name, **rules)
    with pytest.raises(ConfigurationError) as caught:
        await load_inventory(name)
    (problem,) = caught.value.problems
    assert said in problem
    assert f"edit the Evenkeel Policy block {name!r} in the UI, or register the YAML file again" in problem


async def test_without_a_policy_nothing_is_done(name: str) -> None:
    document = await saved(name)
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        (await http.delete(f"/block_documents/{document['id']}")).raise_for_status()
    with pytest.raises(ConfigurationError, match=f"inventory '{name}' has none; register its YAML file again"):
        await load_inventory(name)


def test_the_form_of_the_ui_offers_the_choices() -> None:
    schema = PolicyBlock.model_json_schema()
    assert schema["definitions"]["Autonomy"]["enum"] == ["observe", "propose", "approve", "auto"]
    offered = set(schema["definitions"]["Rules"]["properties"])
    assert offered >= {"autonomy", "autonomy_of_risk", "max_fixes_per_hour_overall", "cooldown_seconds"}
