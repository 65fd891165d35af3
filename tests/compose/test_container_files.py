"""What the lab in containers writes, and what its compose.yaml says; none of it needs an engine."""

import json
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.inventory_file import parse_inventory
from blocks.register import read_environment_file
from blocks.schema import Kind
from compose.compose_tool import COMPOSE_FILE, compose_command
from compose.container_description import CONTAINERS, ContainerLab, load_container_lab, prepare_container_lab
from compose.container_files import compose_environment, write_files
from compose.container_inventory import OF_THE_POOL, POOL, write_container_inventory
from compose.container_lab import SERVICES_OF
from compose.description import LabError, Login

VOLUME = "/var/lib/docker/volumes/shop_database/_data"


@pytest.fixture
def prepared(tmp_path: Path) -> ContainerLab:
    lab = prepare_container_lab(tmp_path / "lab", "evenkeel-written")
    write_files(lab, VOLUME)
    return lab


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """compose.yaml, with its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return found


def logins(lab: ContainerLab) -> list[Login]:
    prefect = lab.prefect
    return [*lab.database.logins.values(), *lab.cache.logins.values(), prefect.database, prefect.scale.broker, prefect.scale.auth]


def test_every_variable_of_the_compose_file_is_written(prepared: ContainerLab) -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text(encoding="utf-8")))
    assert used == set(compose_environment(prepared, VOLUME))
    assert prepared.compose_environment.read_text(encoding="utf-8").count("\n") == len(used)


def test_passwords_stand_only_where_a_server_reads_them(prepared: ContainerLab) -> None:
    assert stat.S_IMODE(prepared.directory.stat().st_mode) == 0o700
    write_container_inventory(prepared)
    servers = (*prepared.config("database").iterdir(), *prepared.config("balancer").iterdir(), prepared.web.config_path)
    open_to_all = (prepared.compose_environment, prepared.inventory_path, *servers)
    for path in open_to_all:
        assert not [login.username for login in logins(prepared) if login.password in path.read_text(encoding="utf-8")], path
    assert len({login.password for login in logins(prepared)}) == len(logins(prepared))


def test_a_second_start_keeps_ports_and_passwords(prepared: ContainerLab) -> None:
    assert prepare_container_lab(prepared.directory, prepared.project) == prepared == load_container_lab(prepared.directory)
    with pytest.raises(LabError, match=r"project: the lab in .* is 'evenkeel-written'"):
        prepare_container_lab(prepared.directory, "evenkeel-other")


def test_a_directory_that_cant_be_mounted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"directory: .*a:b.* choose another directory"):
        prepare_container_lab(tmp_path / "a:b", "evenkeel-written")
    with pytest.raises(LabError, match="no lab here; start one"):
        load_container_lab(tmp_path)


def test_the_inventory_can_be_registered(prepared: ContainerLab) -> None:
    write_container_inventory(prepared)
    environment = read_environment_file(prepared.environment_path.read_text(encoding="utf-8"))
    inventory = parse_inventory(prepared.inventory_path.read_text(encoding="utf-8"), environment).inventory
    containers = {resource.name: resource.address for resource in inventory.resources if resource.kind is Kind.CONTAINER}
    assert containers == {name: f"evenkeel-written-{service}-1" for service, name in CONTAINERS.items()}
    for resource in inventory.resources:
        assert resource.container is not None
        assert resource.container.container in containers.values()
        if resource.kind is not Kind.CONTAINER:
            own = next(name for name, address in containers.items() if address == resource.container.container)
            assert own in resource.depends_on


def test_database_and_cache_are_watched_from_a_pool_of_their_own(prepared: ContainerLab) -> None:
    write_container_inventory(prepared, dict.fromkeys(OF_THE_POOL, POOL))
    environment = read_environment_file(prepared.environment_path.read_text(encoding="utf-8"))
    resources = parse_inventory(prepared.inventory_path.read_text(encoding="utf-8"), environment).inventory.resources
    assert {one.name for one in resources if one.pool == POOL} == set(OF_THE_POOL)
    assert {one.pool for one in resources} == {POOL, None}
    with pytest.raises(LabError, match="pools: the inventory has no resource 'shop-cahce'"):
        write_container_inventory(prepared, {"shop-cahce": POOL})


@pytest.mark.parametrize("profile", SERVICES_OF)
def test_compose_takes_the_file_with_each_profile(prepared: ContainerLab, profile: str) -> None:
    options = (f"--env-file={prepared.compose_environment}", f"--file={COMPOSE_FILE}", f"--profile={profile}")
    command = [*compose_command(), *options, "config", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services.keys() == {*CONTAINERS, *SERVICES_OF[profile]}
    assert not [login.username for login in logins(prepared) if login.password in done.stdout]
    for name in SERVICES_OF[profile]:
        assert services[name].keys() & {"networks", "network_mode"}, name
        assert set(services[name].get("depends_on", ())) <= set(SERVICES_OF[profile]), name


def test_what_debians_postgresql_does_not_know_is_left_out(prepared: ContainerLab) -> None:
    roles = (prepared.secrets("database") / "roles.sql").read_text(encoding="utf-8")
    assert "GRANT pg_monitor, pg_signal_backend, pg_read_all_data TO" in roles
    assert not re.search(r"pg_maintain|reserved_connections|transaction_timeout,", roles.replace("idle_in_transaction", ""))


def test_every_service_is_bounded_checked_and_local(described: dict[str, Any]) -> None:
    for name, service in described["services"].items():
        assert service.get("labels"), name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        if "build" in service:
            build = service["build"]
            own = f"compose/{build}/Dockerfile" if isinstance(build, str) else build["dockerfile"]
            dockerfile = COMPOSE_FILE.parent.parent / own
            assert re.search(r"^FROM debian:bookworm-slim$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE), name
        if name.endswith("-setup"):  # runs once
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["mem_limit"], name
        assert "start_interval" not in service["healthcheck"], name  # older engines refuse it
        if "profiles" not in service:
            assert service["cpus"] <= 1, name
            assert service["memswap_limit"] == service["mem_limit"], name  # else there is twice as much


def test_no_variable_of_a_container_holds_a_password(described: dict[str, Any]) -> None:
    for service in described["services"].values():
        assert not [name for name in service.get("environment", {}) if re.search("PASS|KEY|TOKEN|DATABASE", name)]
