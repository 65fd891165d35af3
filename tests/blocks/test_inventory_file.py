"""From an inventory's text to a registration, or to errors that name place and remedy and no password."""

import json
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError
from blocks.gemini_settings import GeminiSettings
from blocks.inventory_file import parse_inventory
from blocks.register import read_environment_file
from blocks.runtimes import LOCAL_ENGINE, ContainerRuntime, ProcessRuntime
from blocks.schema import Autonomy, Inventory, Kind, Resource
from compose.description import LabDescription

EXAMPLE = Path(__file__).parents[2] / "blocks" / "inventory.example.yaml"
PASSWORDS = {"CACHE_PASSWORD": "s3cret-1", "DB_PASSWORD": "s3cret-2"}
TEXT = """\
name: shop
resources:
  - name: shop-cache
    kind: redis
    address: 127.0.0.1:6379
    logins:
      monitor:
        username: default
        password: ${CACHE_PASSWORD}
  - name: shop-db
    kind: postgres
    address: 127.0.0.1:5432/shop
    logins: {monitor: {username: evenkeel, password: "${DB_PASSWORD}"}}
    depends_on: [shop-cache]
"""


def problems(text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_inventory(text, PASSWORDS | environment)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_logins_are_taken_out_of_the_inventory() -> None:
    found = parse_inventory(TEXT, PASSWORDS)
    assert found.inventory.resource("shop-cache").logins == {"monitor": "default"}
    assert found.inventory.resource("shop-db").depends_on == ("shop-cache",)
    assert set(found.logins) == {("shop-cache", "monitor"), ("shop-db", "monitor")}
    login = found.logins["shop-db", "monitor"]
    assert (login.username, login.password.get_secret_value()) == ("evenkeel", "s3cret-2")
    assert (found.records_url, found.retention_days) == (None, None)
    assert "s3cret" not in repr(found)


def test_the_example_is_valid_and_shows_every_kind_and_every_field_of_a_resource() -> None:
    names = (
        "SHOP_CACHE_MONITOR_PASSWORD",
        "SHOP_DB_MONITOR_PASSWORD",
        "SHOP_DB_APPLICATION_PASSWORD",
        "SHOP_DB_MAINTENANCE_PASSWORD",
        "GEMINI_API_KEY",
        "EVENKEEL_ALERTS_TOKEN",
        "EVENKEEL_MCP_TOKEN",
        "ORDERS_VM_SSH_KEY",
        "ORDERS_DB_MONITOR_PASSWORD",
    )
    channels = {
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/x",
        "ON_CALL_WEBHOOK_URL": "https://x",
        "SENDGRID_API_KEY": "SG.x",
        "GCP_SERVICE_ACCOUNT": json.dumps(
            {"client_email": "a@b.c", "private_key": "x", "token_uri": "https://oauth2.googleapis.com/token"}
        ),
    }
    found = parse_inventory(EXAMPLE.read_text(encoding="utf-8"), dict.fromkeys(names, "x" * 16) | channels)
    assert {resource.kind for resource in found.inventory.resources} == set(Kind)
    assert found.inventory.resource("shop-db").autonomy is Autonomy.APPROVE
    shown = {field for resource in found.inventory.resources for field in resource.model_fields_set}
    assert {"role", "depends_on", "thresholds", "limits", "logins", "maintenance", "config_path", "autonomy"} <= shown
    assert found.retention_days == 90
    assert found.notify is not None
    assert found.notify.model_fields_set == {"slack", "webhook", "email", "silence_seconds"}
    assert found.alerts is not None
    assert found.gemini is not None
    assert found.gemini.settings.shadow is not None
    assert found.gemini.settings.model_copy(update={"shadow": None}) == GeminiSettings()
    assert found.gcp is not None
    assert found.gcp.discover is not None


def test_a_service_names_its_container_and_a_container_needs_no_runtime_on_the_local_engine() -> None:
    text = TEXT.replace("kind: redis\n", "kind: redis\n    runtime: {type: container, container: shop-cache-1}\n")
    found = parse_inventory(f"{text}  - {{name: shop-box, kind: container, address: shop-cache-1}}\n", PASSWORDS).inventory
    assert found.resource("shop-cache").container == ContainerRuntime(container="shop-cache-1", engine=LOCAL_ENGINE)
    assert found.resource("shop-box").container == found.resource("shop-cache").container
    assert found.resource("shop-db").container is None
    assert Inventory.model_validate_json(found.model_dump_json()) == found
    old = {"control": "/run/control.sock", "service": "cache"}
    assert Resource.model_validate(found.resource("shop-cache").model_dump() | {"runtime": old}).runtime == ProcessRuntime(**old)


def test_a_real_labs_inventory_is_valid(fresh_database: LabDescription) -> None:
    environment = read_environment_file(fresh_database.environment_path.read_text(encoding="utf-8"))
    found = parse_inventory(fresh_database.inventory_path.read_text(encoding="utf-8"), environment)
    passwords = {credential.password.get_secret_value() for credential in found.logins.values()}
    assert {login.password for login in fresh_database.database.logins.values()} <= passwords


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "kind: redis",
            "kind: mysql",
            "line 4: resources.shop-cache.kind: no such kind 'mysql'; known kinds: redis, postgres, nginx, http",
        ),
        (
            "address: 127.0.0.1:6379",
            "adress: 127.0.0.1:6379",
            "line 5: resources.shop-cache.adress: no such field; did you mean 'address'?",
        ),
        ("    address: 127.0.0.1:6379\n", "", "line 3: resources.shop-cache.address: is missing; add it"),
        ("name: shop\n", "name: shop\nrule: {}\n", "line 2: rule: no such field; did you mean 'rules'?"),
        ("name: shop\n", "name: shop\nrecord: {}\n", "line 2: record: no such field; did you mean 'records'?"),
        ("name: shop\n", "name: shop\nzzz: {}\n", "line 2: zzz: no such field; known: name, lab,"),
        ("name: shop\n", "name: shop\nrules: {max_step: 3}\n", "line 2: rules.max_step: no such field; did you mean 'max_steps'?"),
        ("name: shop\n", "name: Shop!\n", "line 1: name: write lower-case letters"),
        (
            "kind: redis\n",
            "kind: redis\n    thresholds: {memory: 5}\n",
            "line 5: resources.shop-cache.thresholds.memory: no such field; did you mean 'memory_percent'?",
        ),
        (
            "kind: redis\n",
            "kind: redis\n    runtime: {type: process, control: /c, servce: x}\n",
            "line 5: resources.shop-cache.runtime.servce: no such field; did you mean 'service'?",
        ),
        (
            "kind: redis\n",
            "kind: redis\n    runtime: {type: container, containr: x}\n",
            "line 5: resources.shop-cache.runtime.containr: no such field; did you mean 'container'?",
        ),
        (
            "kind: redis\n",
            "kind: redis\n    runtime: {type: pod, container: x}\n",
            "line 5: resources.shop-cache.runtime: type is 'process' or 'container'",
        ),
        (
            "kind: redis\n",
            "kind: redis\n    runtime: {type: container, container: x, engine: 'ssh://host'}\n",
            "line 5: resources.shop-cache.runtime.engine: write unix:///path or tcp://host:port",
        ),
        ("kind: redis\n", "kind: container\n", "address: kind container takes the container's name, not '127.0.0.1:6379'"),
        (
            "kind: redis\n    address: 127.0.0.1:6379\n",
            "kind: container\n    address: shop\n    runtime: {type: container, container: ship}\n",
            "runtime.container: is 'ship' and the address 'shop'; write the same name",
        ),
        (
            "kind: redis\n",
            "kind: redis\n    thresholds: {memory_percent: 500}\n",
            "line 5: resources.shop-cache.thresholds.memory_percent: Input should be less than or equal to 100",
        ),
        ("username: default", "user: default", "line 8: resources.shop-cache.logins.monitor.user: no such field; did you mean 'username'?"),
        (
            "logins: {monitor",
            "logins: {monitr",
            "line 13: resources.shop-db.logins.monitr: Input should be 'monitor', 'application', 'maintenance' or 'admin'",
        ),
        (
            "logins: {monitor",
            'logins: {admin: {username: dba, password: "${DB_PASSWORD}"}, monitor',
            "resources.shop-db.logins.admin: only a lab has this login, to inject faults; remove it",
        ),
        ("name: shop-db", "name: shop-cache", "resources: the name 'shop-cache' stands twice; names must differ"),
        ("[shop-cache]", "[shop-cash]", "no resource is named 'shop-cash'"),
        ("[shop-cache]", "[shop-db]", "depends_on: a circle: shop-db -> shop-db"),
        (
            "address: 127.0.0.1:6379",
            "address: ${CACHE_ADDRESS}",
            "line 5: resources.shop-cache.address: a ${NAME} is replaced only where a secret belongs",
        ),
        ("kind: redis\n", "kind: redis\n    kind: http\n", "line 5: the field 'kind' stands twice, first on line 4"),
        ("kind: redis\n", "kind: [redis\n", "line 5: no YAML: "),
        ("kind: redis\n", "kind: redis\n\t- x\n", "line 5: no YAML: "),
        ("kind: redis\n", "kind: !!python/object:os.system x\n", "line 4: no YAML: "),
        ("kind: redis\n", "? {a: b}\n    : redis\n", "line 4: a field's name must be a word"),
        ('"${DB_PASSWORD}"', "${DB_PASSWORD}", "line 13: no YAML: expected ',' or '}', but got '{'; between braces, write \"${NAME}\""),
        ("depends_on: [shop-cache]", "depends_on: &all [*all]", "nested more than 20 deep"),
        ("name: shop\n", "name: shop\nrecords: {retention_days: 0}\n", "line 2: records.retention_days: Input should be greater than 0"),
        ("name: shop\n", "name: shop\nrecords: {url: 'mysql://h/d'}\n", "line 2: records.url: no records in 'mysql'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_field_and_remedy(old: str, new: str, said: str) -> None:
    assert old in TEXT
    found = problems(TEXT.replace(old, new, 1))
    assert any(problem.startswith(said) or (not said.startswith("line") and said in problem) for problem in found), found


@pytest.mark.parametrize("text", ["", "# nothing\n", "just words", "- a\n- list"])
def test_what_is_no_inventory_at_all_points_to_the_example(text: str) -> None:
    assert "inventory.example.yaml" in problems(text)[0]


@pytest.mark.parametrize(
    "written",
    ["hunter2", "12345678", "[hunter2]", "'$ENV{X}hunter2'", "'hunter2${DB_PASSWORD}'", "null", "*hunter2", "!hunter2 x", "'hunter2"],
)
def test_a_password_in_the_file_is_refused_and_not_repeated(written: str) -> None:
    (problem, *_) = problems(TEXT.replace("${CACHE_PASSWORD}", written))
    assert problem.startswith(("line 9: ", "line 15: no YAML"))
    assert "hunter2" not in problem
    assert "12345678" not in problem
    if "no YAML" not in problem:
        assert problem == (
            "line 9: resources.shop-cache.logins.monitor.password: a password in plain text; "
            "write ${SHOP_CACHE_MONITOR_PASSWORD} here and put the password into that variable"
        )


def test_a_variable_that_is_missing_is_named_with_its_field_and_how_to_set_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_inventory(TEXT, {"DB_PASSWORD": ""})
    for problem, line, resource, variable, state in zip(
        caught.value.problems, (9, 13), ("shop-cache", "shop-db"), PASSWORDS, ("not set", "empty"), strict=True
    ):
        field = f"line {line}: resources.{resource}.logins.monitor.password"
        remedy = f"export {variable}=..., or pass --env-file FILE with a line {variable}=..."
        assert problem == f"{field}: the environment variable {variable} is {state}; {remedy}"


def test_a_user_of_one_server_has_one_password() -> None:
    twin = TEXT[TEXT.index("  - name: shop-cache") : TEXT.index("  - name: shop-db")].replace("shop-cache", "twin")
    assert parse_inventory(TEXT + twin, PASSWORDS).logins["twin", "monitor"].password.get_secret_value() == "s3cret-1"
    (problem,) = problems(TEXT + twin.replace("CACHE_PASSWORD", "DB_PASSWORD"))
    assert problem.startswith("line 21: resources.twin.logins.monitor.password: not the password that the same user has in shop-cache")


def test_every_problem_is_told_at_once_in_the_files_order() -> None:
    text = TEXT.replace("kind: redis", "kind: mysql").replace("${CACHE_PASSWORD}", "hunter2").replace("depends_on", "depend_on")
    assert [problem.split(":")[0] for problem in problems(text)] == ["line 4", "line 9", "line 14"]


def test_an_address_holds_no_login() -> None:
    (problem,) = problems(TEXT.replace("address: 127.0.0.1:6379", "address: default:hunter2@127.0.0.1:6379"))
    assert problem == "line 5: resources.shop-cache.address: an address holds no login; move it to `logins`"


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("postgresql://me:${RECORDS_PASSWORD}@h:5432/records", "postgresql+asyncpg://me:a%2Fb%40c@h:5432/records"),
        ("postgresql://me:${RECORDS_PASSWORD}@h/records?sslmode=require", "postgresql+asyncpg://me:a%2Fb%40c@h/records?ssl=require"),
        ("${RECORDS_URL}", "postgresql+asyncpg://you:pw@h/records"),
        ("sqlite:////var/lib/evenkeel/records.db", "sqlite+aiosqlite:////var/lib/evenkeel/records.db"),
    ],
)
def test_the_records_url_takes_references(written: str, url: str) -> None:
    environment = PASSWORDS | {"RECORDS_PASSWORD": "a/b@c", "RECORDS_URL": "postgresql://you:pw@h/records"}
    found = parse_inventory(f"{TEXT}records:\n  url: {written}\n  retention_days: 30\n", environment)
    assert found.records_url is not None
    assert found.records_url.get_secret_value() == url
    assert found.retention_days == 30


@pytest.mark.parametrize("written", ["postgresql://me:hunter2@h/r", "postgresql://h/r?user=me&password=hunter2"])
def test_a_password_in_the_records_url_is_refused_and_not_repeated(written: str) -> None:
    (problem,) = problems(f"{TEXT}records: {{url: '{written}'}}\n")
    assert problem.startswith("line 15: records.url: a password in plain text; write ${RECORDS_PASSWORD}")
    assert "hunter2" not in problem


def test_a_relative_path_of_the_records_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse_inventory(f"{TEXT}records: {{url: sqlite:///data/records.db}}\n", PASSWORDS)
    assert found.records_url is not None
    assert found.records_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/data/records.db"


@pytest.mark.parametrize(
    ("kind", "section", "told"),
    [
        ("nginx", 'modes: {/srv: "0777"}', "not writable for others"),
        ("nginx", "modes: {/srv: rwx}", "write three octal digits in quotes"),
        ("nginx", "pages: [static/shop.css]", "is no path; write it from the slash on"),
        ("http", "pages: [/static/shop.css]", "nginx: does not apply to kind http; remove it"),
    ],
)
def test_how_an_nginx_is_meant_to_be_is_checked(kind: str, section: str, told: str) -> None:
    text = f"name: shop\nresources:\n  - {{name: web, kind: {kind}, address: 'http://127.0.0.1/', nginx: {{{section}}}}}\n"
    [problem] = problems(text)
    assert told in problem
