"""The lab's inventory file: its servers as resources, and the passwords beside it."""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from compose.database import database_settings_path
from compose.description import LabDescription, LabError, Login, write_private

MONITOR_PASSWORD = "SHOP_DB_MONITOR_PASSWORD"  # noqa: S105 - the name of a variable
APPLICATION_PASSWORD = "SHOP_DB_APPLICATION_PASSWORD"  # noqa: S105
MAINTENANCE_PASSWORD = "SHOP_DB_MAINTENANCE_PASSWORD"  # noqa: S105
ADMIN_PASSWORD = "SHOP_DB_ADMIN_PASSWORD"  # noqa: S105
CACHE_PASSWORD = "SHOP_CACHE_MONITOR_PASSWORD"  # noqa: S105
CACHE_APPLICATION_PASSWORD = "SHOP_CACHE_APPLICATION_PASSWORD"  # noqa: S105
MCP_TOKEN = "EVENKEEL_MCP_TOKEN"  # noqa: S105


def write_inventory(lab: LabDescription) -> None:
    """Write DIR/inventory.yaml, which names variables in place of passwords, and DIR/lab.env with their values (mode 0600)."""
    text = yaml.safe_dump(inventory(lab), sort_keys=False, width=120)
    write_private(lab.inventory_path, f"# The lab's servers. Written at each `up`; passwords are in {lab.environment_path.name}.\n{text}")
    lines = [f"{name}={value}\n" for name, value in environment(lab).items()]
    write_private(lab.environment_path, "".join(lines))


def environment(lab: LabDescription) -> dict[str, str]:
    """Variables that the inventory refers to."""
    return {
        MONITOR_PASSWORD: lab.database.logins["monitor"].password,
        APPLICATION_PASSWORD: lab.database.logins["application"].password,
        MAINTENANCE_PASSWORD: lab.database.logins["maintenance"].password,
        ADMIN_PASSWORD: lab.database.logins["admin"].password,
        CACHE_PASSWORD: lab.cache.password,
        CACHE_APPLICATION_PASSWORD: lab.cache.logins["application"].password,
        # Lasts as long as the lab's passwords do.
        MCP_TOKEN: hmac.digest(lab.database.logins["admin"].password.encode(), MCP_TOKEN.encode(), "sha256").hex(),
    }


def inventory(lab: LabDescription) -> dict[str, Any]:
    """The inventory of the services that this lab runs, as plain data."""

    def runtime(service: str) -> dict[str, str]:
        return {"type": "process", "control": str(lab.control), "service": service}

    def login(user: Login, variable: str) -> dict[str, str]:
        return {"username": user.username, "password": f"${{{variable}}}"}

    database, cache = lab.database, lab.cache
    resources: dict[str, dict[str, Any]] = {
        "database": {
            "name": "shop-db",
            "kind": "postgres",
            "address": f"{database.host}:{database.port}/{database.dbname}",
            "role": "store",
            "config_path": str(database_settings_path(lab)),
            # A scenario does not wait for what is patience elsewhere.
            "thresholds": {"idle_in_transaction_seconds": 4, "blocked_seconds": 3, "query_seconds": 5, "retained_wal_mib": 48},
            "limits": {"connections": 200},
            "baseline": [{"tool": "postgres_scale_connections", "args": {"connections": 100}}],
            "logins": {
                "monitor": login(database.logins["monitor"], MONITOR_PASSWORD),
                "application": login(database.logins["application"], APPLICATION_PASSWORD),
                "maintenance": login(database.logins["maintenance"], MAINTENANCE_PASSWORD),
                "admin": login(database.logins["admin"], ADMIN_PASSWORD),
            },
        },
        "cache": {
            "name": "shop-cache",
            "kind": "redis",
            "address": f"{cache.host}:{cache.port}",
            "role": "cache",
            "primary": True,
            "config_path": str(cache.config_path),
            "limits": {"memory_mib": 128},
            "baseline": [{"tool": "redis_set_maxmemory", "args": {"mebibytes": 64}}],
            "logins": {
                "monitor": login(cache.logins["monitor"], CACHE_PASSWORD),
                "application": login(cache.logins["application"], CACHE_APPLICATION_PASSWORD),
            },
        },
        "web": {
            "name": "shop-web",
            "kind": "nginx",
            "address": lab.web.tls_url,
            "config_path": str(lab.web.config_path),
            "nginx": {
                "pages": ["/static/shop.css"],
                "upstreams": {"shop": [f"{lab.app.host}:{lab.app.port}"]},
                "certificate": {"certificate": str(lab.web.tls / "issued.crt"), "key": str(lab.web.tls / "issued.key")},
                "ca_path": str(lab.web.tls / "ca.crt"),
                "modes": {str(lab.web.web_root / "static"): "0755"},
            },
            "limits": {"connections": 4096},
            "baseline": [{"tool": "nginx_scale_connections", "args": {"worker_connections": 256}}],
            "depends_on": ["shop-app"] if "app" in lab.services else [],
        },
        "app": {
            "name": "shop-app",
            "kind": "http",
            "address": f"{lab.app.url}healthz",
            "depends_on": ["shop-db", "shop-cache"],
        },
    }
    return {
        "name": "lab",
        "lab": True,
        **({"shop": {"url": lab.app.url, "traffic_url": lab.traffic.url}} if {"app", "traffic"} <= set(lab.services) else {}),
        # Faults are tried again and again here, so the lab knows no cool-downs.
        "rules": {
            "settle_seconds": 2,
            "cooldown_seconds": 0,
            "escalation_pause_seconds": 20,
            "max_fixes_per_hour": 1000,
            "max_fixes_per_hour_overall": 1000,
        },
        "records": {"url": f"sqlite:///{lab.directory / 'records.db'}"},
        "mcp": {"token": f"${{{MCP_TOKEN}}}"},
        "resources": [{**resource, "runtime": runtime(service)} for service, resource in resources.items() if service in lab.services],
    }


def in_pools(resources: Sequence[Mapping[str, Any]], pools: Mapping[str, str]) -> list[dict[str, Any]]:
    """Resources of an inventory with the work pools that watch them; LabError where one is not among them."""
    unknown = sorted(pools.keys() - {resource["name"] for resource in resources})
    if unknown:
        raise LabError(f"pools: the inventory has no resource {unknown[0]!r}")
    return [{**resource, **({"pool": pools[resource["name"]]} if resource["name"] in pools else {})} for resource in resources]
