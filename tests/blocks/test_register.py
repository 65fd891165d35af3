"""Registering an inventory in a real Prefect server, and loading it again."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import documents
from blocks.errors import ConfigurationError
from blocks.inventory import load_dated_inventory, load_inventory, load_login, load_logins
from blocks.inventory_file import parse_inventory
from blocks.records import RECORDS, RecordsBlock, load_records_url, load_retention_days
from blocks.register import Saved, main, read_environment_file, register

pytestmark = pytest.mark.usefixtures("prefect_server")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def name() -> str:
    """A name that no other test's inventory has."""
    return f"shop-{uuid.uuid4().hex[:12]}"


def text(name: str, *resources: str, more: str = "") -> str:
    """An inventory of PostgreSQL servers with two logins each."""
    entries = "".join(
        f"""
  - name: {resource}
    kind: postgres
    address: 127.0.0.1:5432/{resource}
    logins:
      monitor: {{username: evenkeel, password: "${{MONITOR_PASSWORD}}"}}
      application: {{username: shop, password: "${{APPLICATION_PASSWORD}}"}}"""
        for resource in resources
    )
    return f"name: {name}\nresources:{entries}\n{more}"


PASSWORDS = {"MONITOR_PASSWORD": "m0nitor", "APPLICATION_PASSWORD": "4pp"}


async def saved_blocks(prefix: str) -> dict[str, dict[str, object]]:
    """The content of the saved blocks by name, a policy as `policy of NAME`; asked of the server's API over plain HTTP."""
    query = {"block_documents": {"name": {"like_": prefix}}, "include_secrets": True}
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.post("/block_documents/filter", json=query)
    prefixes = {"evenkeel-policy": "policy of "}
    return {
        prefixes.get(document["block_type"]["slug"], "") + document["name"]: document["data"]
        for document in answer.raise_for_status().json()
    }


async def forget_records() -> None:
    async with get_client() as client:
        for document in (await documents.read(client, RecordsBlock, [RECORDS])).values():
            await client.delete_block_document(document.id)


async def test_an_inventory_and_its_logins_are_saved_and_loaded(name: str) -> None:
    registration = parse_inventory(text(name, "db"), PASSWORDS)
    await register(registration)
    assert await load_inventory(name) == registration.inventory
    blocks = await saved_blocks(name)
    assert set(blocks) == {name, f"policy of {name}", f"{name}-db-monitor", f"{name}-db-application"}
    assert blocks[f"{name}-db-monitor"]["password"] == "m0nitor"
    login = await load_login(name, "db", "application")
    assert (login.username, login.password.get_secret_value()) == ("shop", "4pp")
    logins = await load_logins(registration.inventory)
    assert set(logins) == {("db", "monitor"), ("db", "application")}
    assert "m0nitor" not in repr(logins)


async def test_without_secrets_asked_for_the_server_hides_them(name: str) -> None:
    await register(parse_inventory(text(name, "db", more="records: {url: 'postgresql://me:${MONITOR_PASSWORD}@h/r'}"), PASSWORDS))
    async with httpx.AsyncClient(base_url=str(PREFECT_API_URL.value())) as http:
        answer = await http.post("/block_documents/filter", json={})
    assert f"{name}-db-monitor" in answer.text
    assert "m0nitor" not in answer.text


async def test_registering_again_writes_only_what_changed(name: str) -> None:
    registration = parse_inventory(text(name, "db", "other"), PASSWORDS)
    assert (await register(registration)).written >= 6
    assert await register(registration) == Saved(written=0, deleted=0)
    changed = parse_inventory(text(name, "db", "other", more="lab: true"), PASSWORDS | {"APPLICATION_PASSWORD": "new"})
    assert await register(changed) == Saved(written=3, deleted=0)
    assert (await load_inventory(name)).lab
    assert (await load_login(name, "other", "application")).password.get_secret_value() == "new"
    assert (await load_login(name, "other", "monitor")).password.get_secret_value() == "m0nitor"


async def test_when_an_inventory_or_its_rules_were_changed_is_known(name: str) -> None:
    await register(parse_inventory(text(name, "db"), PASSWORDS))
    _, at_first = await load_dated_inventory(name)
    await register(parse_inventory(text(name, "db"), PASSWORDS))
    assert await load_dated_inventory(name) == (await load_inventory(name), at_first)
    await register(parse_inventory(text(name, "db", more="rules: {autonomy: approve}"), PASSWORDS))
    inventory, then = await load_dated_inventory(name)
    assert at_first is not None
    assert then is not None
    assert (inventory.rules.autonomy, then > at_first) == ("approve", True)


async def test_the_logins_of_a_removed_resource_go_and_those_of_a_namesake_stay(name: str) -> None:
    await register(parse_inventory(text(name, "db", "old"), PASSWORDS))
    await register(parse_inventory(text(f"{name}-old", "db"), PASSWORDS))
    assert (await register(parse_inventory(text(name, "db"), PASSWORDS))).deleted == 2
    assert set(await saved_blocks(name)) == {
        name,
        f"policy of {name}",
        f"{name}-db-monitor",
        f"{name}-db-application",
        f"{name}-old",
        f"policy of {name}-old",
        f"{name}-old-db-monitor",
        f"{name}-old-db-application",
    }


async def test_two_inventories_whose_logins_would_have_one_name_are_refused(name: str) -> None:
    await register(parse_inventory(text(f"{name}-a", "b"), PASSWORDS))
    before = await saved_blocks(name)
    with pytest.raises(ConfigurationError, match=f"is that of {name}-a/b/monitor; rename the inventory or the resource"):
        await register(parse_inventory(text(name, "a-b"), PASSWORDS))
    assert await saved_blocks(name) == before


async def test_the_records_place_is_kept_until_a_file_names_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await forget_records()
    with pytest.raises(ConfigurationError, match="no database is saved"):
        await load_records_url()
    monkeypatch.chdir(tmp_path)
    await register(parse_inventory(text(name, "db"), PASSWORDS))
    assert await load_records_url() == f"sqlite+aiosqlite:///{tmp_path}/.evenkeel/records.db"
    assert await load_retention_days() == 90
    elsewhere = "records: {url: 'postgresql://me:${MONITOR_PASSWORD}@h/r', retention_days: 7}"
    await register(parse_inventory(text(name, "db", more=elsewhere), PASSWORDS))
    await register(parse_inventory(text(name, "db"), PASSWORDS))
    assert await load_records_url() == "postgresql+asyncpg://me:m0nitor@h/r"
    assert await load_retention_days() == 7


async def test_what_is_not_saved_is_named_with_its_remedy(name: str) -> None:
    await register(parse_inventory(text(f"{name}-else", "db"), PASSWORDS))
    with pytest.raises(ConfigurationError, match=r"web\.logins\.monitor is not one of its logins"):
        await load_login(f"{name}-else", "web", "monitor")
    with pytest.raises(ConfigurationError, match=f"none named '{name}' is saved; run: python -m blocks.register"):
        await load_inventory(name)
    with pytest.raises(ConfigurationError, match=r"db\.monitor: this login is not saved; register the inventory"):
        await load_logins(parse_inventory(text(name, "db"), PASSWORDS).inventory)


async def test_more_logins_than_fit_into_one_request_are_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "NAMES_A_REQUEST", 3)
    registration = parse_inventory(text(name, "a", "b", "c", "d"), PASSWORDS)
    await register(registration)
    assert {login: one.username for login, one in (await load_logins(registration.inventory)).items()} == {
        (resource, purpose): username for resource in "abcd" for purpose, username in (("monitor", "evenkeel"), ("application", "shop"))
    }


async def test_a_thousand_resources_at_one_server_share_its_logins(name: str) -> None:
    one_server = text(name, *(f"db-{number}" for number in range(1000)))
    registration = parse_inventory(re.sub(r"5432/db-\d+", "5432/shop", one_server), PASSWORDS)
    await register(registration)
    assert set(await saved_blocks(name)) == {name, f"policy of {name}", f"{name}-db-0-monitor", f"{name}-db-0-application"}
    started = time.monotonic()
    logins = await load_logins(await load_inventory(name))
    assert time.monotonic() - started < 3
    assert len(logins) == 2000
    assert {login.password.get_secret_value() for login in logins.values()} == set(PASSWORDS.values())


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, with exactly these variables for passwords."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": str(PREFECT_API_URL.value()), **environment}
    command = [sys.executable, "-m", "blocks.register", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=90, check=False)


async def test_the_command_takes_passwords_from_the_environment_and_from_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text(text(name, "db"))
    (tmp_path / "passwords").write_text("# of the lab\nexport MONITOR_PASSWORD='from a file'\n\n")
    environment = {"MONITOR_PASSWORD": "from outside", "APPLICATION_PASSWORD": "from outside"}
    result = run(str(tmp_path / "inventory.yaml"), "--env-file", str(tmp_path / "passwords"), **environment)
    assert result.returncode == 0, result.stderr
    assert f"{name}: 1 resource(s) registered" in result.stdout
    blocks = await saved_blocks(name)
    assert blocks[f"{name}-db-monitor"]["password"] == "from a file"
    assert blocks[f"{name}-db-application"]["password"] == "from outside"
    assert json.dumps(blocks[name]).count("from") == 0


def test_the_command_names_every_problem_and_saves_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(text(name, "db").replace("${APPLICATION_PASSWORD}", "hunter2").replace("kind: postgres", "kind: postgress"))
    assert main([str(path)]) == 2
    shown = capsys.readouterr()
    assert "hunter2" not in shown.err + shown.out
    for said in ("inventory.yaml was not registered", "line 4: ", "MONITOR_PASSWORD is not set", "line 8: ", "plain text"):
        assert said in shown.err
    assert asyncio.run(saved_blocks(name)) == {}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    assert main([str(tmp_path / "latin.yaml")]) == 2
    assert "not written in UTF-8, from byte 9 on" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inventory.yaml").write_text(text(name, "db"))
    for variable, value in PASSWORDS.items():
        monkeypatch.setenv(variable, value)
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert main([str(tmp_path / "inventory.yaml")]) == 1
    assert "is the server running at PREFECT_API_URL?" in capsys.readouterr().err


def test_without_a_server_named_nothing_is_saved_in_one_that_prefect_makes_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inventory.yaml").write_text("name: mine\nresources: [{name: cache, kind: redis, address: 'localhost:6379'}]")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults=[PREFECT_API_URL]):
        assert main([str(tmp_path / "inventory.yaml")]) == 2
    assert "PREFECT_API_URL is not set; run: prefect config set" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["A=1\nhunter2 is mine\n", "A=1\nhunter2\n", "A=1\nB='hunter2\n"])
def test_a_line_of_the_environment_file_that_is_none_is_named_and_not_repeated(content: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_environment_file(content)
    assert "line 2 of the environment file" in str(caught.value)
    assert "hunter2" not in str(caught.value)
