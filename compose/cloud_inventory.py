"""The cloud lab's inventory file: what runs in the simulated project as resources, and keys and passwords beside it."""

import json
from pathlib import Path
from typing import Any

import yaml

from compose.description import LabDescription, LabError, Login, Purpose, write_private
from compose.google_cloud.description import CloudDescription, PlaneAddress
from compose.google_cloud.world import ComputeDescribed, InstanceDescribed, RedisDescribed, SqlDescribed, World
from compose.inventory import environment as local_environment
from compose.inventory import inventory

NAME = "cloud"
KEY = "GCP_SERVICE_ACCOUNT"
IDENTITY = "evenkeel"
"""The identity of the world under which the lab's resources are watched and healed."""
TIERS = ("db-g1-small", "db-custom-1-3840", "db-custom-2-7680")
MOST_MEMORY_GIB = 4
MOST_STORAGE_GIB = 40

# Faults are tried again and again here, so the lab knows no cool-downs.
RULES = {
    "settle_seconds": 2,
    "cooldown_seconds": 0,
    "escalation_pause_seconds": 60,
    "max_fixes_per_hour": 1000,
    "max_fixes_per_hour_overall": 1000,
}


def write_cloud_inventory(directory: Path, world: World, cloud: CloudDescription, beside: LabDescription | None = None) -> None:
    """Write DIR/inventory.yaml, which names variables in place of secrets, and DIR/lab.env with their values (mode 0600).

    What a lab of processes has stands in it too where that runs beside it.
    """
    document, variables = cloud_inventory(directory, world, cloud), environment(world, cloud)
    if beside is not None:
        local = inventory(beside)
        document = {**local, **document, "resources": [*local["resources"], *document["resources"]]}
        variables = {**local_environment(beside), **variables}
    text = yaml.safe_dump(document, sort_keys=False, width=120)
    write_private(
        directory / "inventory.yaml", f"# The cloud lab's resources. Written at each start; keys and passwords are in lab.env.\n{text}"
    )
    lines = [f"{name}={_quoted(value)}\n" for name, value in variables.items()]
    write_private(directory / "lab.env", "".join(lines))


def cloud_inventory(directory: Path, world: World, cloud: CloudDescription) -> dict[str, Any]:
    """The inventory as plain data: every instance behind which a real server stands."""
    machines = [_machine(one, cloud.planes[one.name], _logins_of(one, cloud)) for one in world.compute if one.plane]
    through = machines[0]["name"] if machines else None
    private = [
        *(_database(one, cloud.planes[one.name]) for one in world.sql if one.plane),
        *(_cache(one, cloud.planes[one.name]) for one in world.redis if one.plane),
    ]
    for resource in private:
        if through is not None:
            resource["cloud"]["through"] = through
            resource["depends_on"] = [through]
    return {
        "name": NAME,
        "lab": True,
        "rules": RULES,
        "gcp": {"project": world.project, "service_account": f"${{{KEY}}}"},
        "records": {"url": f"sqlite:///{directory / 'records.db'}"},
        "resources": [*machines, *private],
    }


def environment(world: World, cloud: CloudDescription) -> dict[str, str]:
    """Variables that the inventory refers to."""
    if IDENTITY not in cloud.key_paths:
        raise LabError(f"identities: the world has no {IDENTITY!r}, under which the lab is watched; add it")
    found = {KEY: json.dumps(json.loads(cloud.key_paths[IDENTITY].read_text(encoding="utf-8")))}
    for one in (*world.compute, *world.sql, *world.redis):
        if one.plane:
            for purpose, login in _logins_of(one, cloud).items():
                found[_variable(one.name, purpose)] = login.password
    return found


def _logins_of(described: InstanceDescribed, cloud: CloudDescription) -> dict[Purpose, Login]:
    """Those of the real server; a machine's `admin` is for faults of the project itself: the admin API's address and token."""
    logins = cloud.planes[described.name].logins
    if isinstance(described, ComputeDescribed):
        return {**logins, "admin": Login(username=cloud.admin_url, password=cloud.admin_token)}
    return logins


def _machine(described: ComputeDescribed, plane: PlaneAddress, logins: dict[Purpose, Login]) -> dict[str, Any]:
    ssh = {"host": plane.host, "port": plane.port, "host_keys": [plane.host_key]}
    return {
        "name": described.name,
        "kind": "compute_engine",
        "address": described.name,
        "role": "cache",
        "thresholds": {"memory_percent": 90, "cpu_percent": 90},
        "cloud": {"location": described.zone, "ssh": ssh},
        "logins": _logins(described.name, logins),
    }


def _database(described: SqlDescribed, plane: PlaneAddress) -> dict[str, Any]:
    return {
        "name": described.name,
        "kind": "cloud_sql",
        "address": described.name,
        "role": "store",
        # A scenario does not wait for what is patience elsewhere.
        "thresholds": {"query_seconds": 5},
        "limits": {"storage_gib": MOST_STORAGE_GIB, "tiers": list(TIERS)},
        "cloud": {"location": described.region, "database": described.database},
        "logins": _logins(described.name, plane.logins),
    }


def _cache(described: RedisDescribed, plane: PlaneAddress) -> dict[str, Any]:
    return {
        "name": described.name,
        "kind": "memorystore",
        "address": described.name,
        "role": "cache" if described.tier == "STANDARD_HA" else "store",
        "limits": {"memory_gib": MOST_MEMORY_GIB},
        "cloud": {"location": described.region},
        "logins": _logins(described.name, plane.logins),
    }


def _logins(name: str, logins: dict[Any, Login]) -> dict[str, dict[str, str]]:
    return {purpose: {"username": login.username, "password": f"${{{_variable(name, purpose)}}}"} for purpose, login in logins.items()}


def _variable(name: str, purpose: str) -> str:
    return f"{name}_{purpose}_PASSWORD".upper().replace("-", "_")


def _quoted(value: str) -> str:
    """As a line of an environment file: a private key has several lines, a service account's has quotes."""
    if '"' in value:
        return f"'{value}'"
    return '"' + value.replace("\n", "\\n") + '"'
