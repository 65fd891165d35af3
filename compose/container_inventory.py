"""The inventory of the lab in containers: that of a lab of processes, with each server's container as a resource that it depends on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from compose.compose_tool import COMPOSE_FILE
from compose.container_description import CONTAINERS, ContainerLab
from compose.container_project import volume_path
from compose.description import write_private
from compose.inventory import environment, in_pools, inventory

POOL = "data"
OF_THE_POOL = ("shop-db", "shop-cache", CONTAINERS["database"], CONTAINERS["cache"])
"""What the second worker of the profile `scale` watches."""
SERVICES = {"shop-db": "database", "shop-cache": "cache", "shop-web": "web", "shop-app": "app"}
"""Resource -> compose service that it is."""
GROWTH = 2
"""How many times of what compose.yaml gives it a container may be given."""
MOST_REPLICAS = 4


def write_container_inventory(lab: ContainerLab, pools: Mapping[str, str] | None = None) -> None:
    """Write DIR/inventory.yaml, which names variables in place of passwords, and DIR/lab.env with their values (mode 0600).

    `pools`: resource -> the work pool that watches it, where that is not the default one.
    """
    document = container_inventory(lab)
    document["resources"] = in_pools(document["resources"], pools or {})
    text = yaml.safe_dump(document, sort_keys=False, width=120)
    write_private(
        lab.inventory_path, f"# The lab's containers. Written at each `up`; passwords are in {lab.environment_path.name}.\n{text}"
    )
    write_private(lab.environment_path, "".join(f"{name}={value}\n" for name, value in environment(lab).items()))


def container_inventory(lab: ContainerLab) -> dict[str, Any]:
    """The inventory as plain data."""
    document = inventory(lab)
    engine = {"engine": f"unix://{lab.control}"}
    for resource in document["resources"]:
        service = SERVICES[resource["name"]]
        resource["runtime"] = {"type": "container", "container": lab.container(service), **engine}
        depends_on = [*resource.get("depends_on", []), CONTAINERS[service]]
        resource["depends_on"] = [*depends_on, CONTAINERS["replica"]] if service == "web" else depends_on
        if service == "web":
            resource["nginx"]["upstreams"] = {"shop": ["shop:8000"]}
        if service == "database":
            resource.pop("config_path", None)
            if lab.database_settings is not None:
                resource["config_path"] = str(lab.database_settings)
    document["resources"] += [
        {
            "name": name,
            "kind": "container",
            "address": lab.container(service),
            "role": "cache" if service == "cache" else "store",
            **_capacity(service),
            "runtime": {"type": "container", "container": lab.container(service), **engine},
        }
        for service, name in CONTAINERS.items()
    ]
    return document


def _capacity(service: str) -> dict[str, Any]:
    """Limits of what tools may do, and the calls that bring a container back to what compose.yaml gives it."""
    declared = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))["services"][service]
    memory_mib, cpus = int(declared["mem_limit"].removesuffix("m")), declared["cpus"]
    limits = {"memory_mib": GROWTH * memory_mib, "cpus": GROWTH * cpus}
    baseline: list[dict[str, Any]] = [{"tool": "docker_update_limits", "args": {"memory_mib": memory_mib, "cpus": cpus}}]
    if service == "replica":
        limits["replicas"] = MOST_REPLICAS
        baseline.append({"tool": "docker_scale", "args": {"replicas": 1}})
    return {"limits": limits, "baseline": baseline}


async def settings_path(lab: ContainerLab) -> Path | None:
    """The file that ALTER SYSTEM writes, where this user may change it: it lies in a volume of the engine's."""
    path = Path(await volume_path(lab.project, "database")) / "data" / "postgresql.auto.conf"
    return path if os.access(path, os.W_OK) else None
