"""One incident of every kind that the lab's resources can have, from readings as the probes make them. Nothing is running for it."""

import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from blocks.inventory_file import parse_inventory
from blocks.schema import Inventory, Role
from compose import inventory as lab_file
from compose.new_lab import prepare
from tasks.catalog import load_catalog
from tasks.core.detection import open_incident
from tasks.core.models import Context, Reading
from tasks.core.verdicts import observe
from tests.container_incidents import BOX_RESOURCE, CONTAINER_READINGS
from tests.machine_incidents import MACHINE_READINGS, MACHINE_RESOURCE
from tests.managed_incidents import MANAGED_READINGS, MANAGED_RESOURCES

NOW = datetime(2026, 1, 1, tzinfo=UTC)

REDIS = {
    "answers": "yes",
    "used_memory_mib": 40.0,
    "maxmemory_mib": 64.0,
    "memory_percent": 62.5,
    "write_ok": True,
    "clients_percent": 1.0,
    "latency_seconds": 0.001,
}
STOCK_SYNC = {
    "name": "stock-sync",
    "user": "shop",
    "address": "10.0.0.7",
    "count": 190,
    "median_idle_seconds": 30,
    "longest_idle_seconds": 60,
}
CROWDED_REDIS = REDIS | {"connected_clients": 199, "maxclients": 200, "clients_percent": 99.5, "top_clients": [STOCK_SYNC], "drift": {}}
FULL_REDIS = REDIS | {"used_memory_mib": 62.0, "memory_percent": 96.88}
POSTGRES = {
    "answers": "yes",
    "select_ok": True,
    "select_seconds": 0.01,
    "connections_used": 20,
    "connections_max": 100,
    "connections_percent": 20.0,
    "connections_reserved": 6,
    "top_sessions": [],
}
LOADED = {"connections_used": 90, "connections_percent": 90.0}
SESSIONS = {
    "application_name": "reports",
    "user": "shop",
    "state": "active",
    "query": "SELECT ?",
    "blocked": 0,
    "count": 86,
    "oldest_seconds": 9.0,
    "median_seconds": 8.0,
    "youngest_seconds": 7.0,
}
LONG_QUERY = {"pid": 4711, "application_name": "reports", "user": "shop", "seconds": 7200.0, "query": "SELECT ?"}
DEAD_ROWS = {"schema": "public", "name": "shop", "dead_rows": 90_000, "live_rows": 10_000, "dead_percent": 90.0}
LOST = {"privilege": "USAGE", "kind": "schema", "schema": "public", "name": None}
BLOCKER = {"pid": 4711, "application_name": "reports", "user": "shop", "state": "idle in transaction", "seconds": 30.0}
NGINX = {
    "answers": "yes",
    "page_ok": True,
    "page_status": 200,
    "page_seconds": 0.01,
    "connections_used": 20,
    "connections_max": 256,
    "connections_percent": 7.8,
    "busiest_worker_percent": 7.8,
    "worker_connections": 256,
    "worker_processes": 1,
    "draining_workers": 0,
    "stopped_workers": 0,
    "config_loaded": True,
    "config_error": None,
    "config_known_good": True,
    "undeclared_servers": {},
    "unused_servers": {},
    "pages_failing": {},
    "wrong_modes": {},
}
UPSTREAM, STATIC = "127.0.0.1:8000", "/srv/shop/static"
BAD_GATEWAY = {"page_ok": False, "page_status": 502, "page_from": "nginx"}
GATEWAY_TIMEOUT = {"page_ok": False, "page_status": 504, "page_from": "nginx"}
FULL_NGINX = NGINX | {"connections_used": 240, "connections_percent": 93.8, "busiest_worker_percent": 93.8}
GONE_NGINX = {"answers": "refused", "page_ok": False, "error": "refused"}
HTTP = {"answers": "yes", "status_code": 200, "latency_seconds": 0.01, "dependencies": {}, "failing_dependencies": []}

READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cache: memory_high": ("shop-cache", FULL_REDIS),
    "cache: write_refused": ("shop-cache", FULL_REDIS | {"write_ok": False, "write_error": "OOM command not allowed"}),
    "cache: down": ("shop-cache", {"answers": "refused", "error": "refused"}),
    "cache: unresponsive": ("shop-cache", {"answers": "timeout"}),
    "cache: clients_high": ("shop-cache", REDIS | {"clients_percent": 95.0}),
    "cache: clients_high by one": ("shop-cache", CROWDED_REDIS),
    "cache: clients_exhausted": (
        "shop-cache",
        CROWDED_REDIS
        | {"clients_percent": 100.0, "maxclients": 10, "drift": {"maxclients": {"now": "10", "declared": "200"}}, "top_clients": []},
    ),
    "cache: persistence_failing": ("shop-cache", REDIS | {"rdb_last_bgsave_status": "err"}),
    "cache: persistence_failing in another directory": (
        "shop-cache",
        REDIS
        | {"rdb_last_bgsave_status": "err", "write_ok": False, "write_error": "MISCONF Errors writing to disk"}
        | {"drift": {"dir": {"now": "/mnt/gone", "declared": "/var/lib/redis"}}},
    ),
    "cache: unresponsive while computing": ("shop-cache", {"answers": "timeout", "process_state": "running"}),
    "cache: script_blocking": ("shop-cache", {"answers": "yes", "blocked_by_script": True}),
    "cache: unexpected_replica": (
        "shop-cache",
        REDIS
        | {"role": "replica", "master": "10.0.0.9:6379", "master_link_status": "down"}
        | {"write_ok": False, "write_error": "READONLY You can't write against a read only replica."},
    ),
    "cache: auth_refused": ("shop-cache", REDIS | {"application_user": "shop", "application_login": "rejected"}),
    "cache: aof_broken": ("shop-cache", {"answers": "refused", "error": "refused", "broken_aof": "appendonly.aof.1.incr.aof"}),
    "cache: slow": ("shop-cache", REDIS | {"latency_seconds": 3.0}),
    "store: memory_high": ("shop-cache", FULL_REDIS),
    "store: unresponsive": ("shop-cache", {"answers": "timeout"}),
    "db: connections_high": ("shop-db", POSTGRES | LOADED | {"top_sessions": [SESSIONS]}),
    "db: connections_high by idle sessions": ("shop-db", POSTGRES | LOADED | {"top_sessions": [SESSIONS | {"state": "idle"}]}),
    "db: connections_high by many": ("shop-db", POSTGRES | LOADED | {"top_sessions": [SESSIONS | {"count": 9}]}),
    "db: connections_exhausted": ("shop-db", POSTGRES | {"select_ok": False, "select_reason": "full", "top_sessions": [SESSIONS]}),
    "db: lock_wait": ("shop-db", POSTGRES | {"longest_blocked_seconds": 30.0, "blocked_count": 3, "blocker": BLOCKER}),
    "db: idle_in_transaction": (
        "shop-db",
        POSTGRES
        | {
            "oldest_idle_in_transaction_seconds": 90.0,
            "oldest_idle_in_transaction_application": "reports",
            "oldest_idle_in_transaction_user": "shop",
        },
    ),
    "db: long_query": ("shop-db", POSTGRES | {"longest_query": LONG_QUERY}),
    "db: read_only": ("shop-db", POSTGRES | {"read_only": True, "in_recovery": False, "read_only_source": "configuration file"}),
    "db: read_only for one role": ("shop-db", POSTGRES | {"read_only": True, "in_recovery": False, "read_only_source": "user"}),
    "db: privilege_missing": ("shop-db", POSTGRES | {"privileges_missing": [LOST]}),
    "db: dead_rows": ("shop-db", POSTGRES | {"bloated_table": DEAD_ROWS | {"autovacuum": "off for the table"}}),
    "db: dead_rows everywhere": ("shop-db", POSTGRES | {"bloated_table": DEAD_ROWS | {"autovacuum": "off for the server"}}),
    "db: wal_retained": ("shop-db", POSTGRES | {"idle_slot": {"name": "standby", "type": "physical", "retained_mib": 9000}}),
    "db: pages_damaged": ("shop-db", POSTGRES | {"damaged_pages": 1}),
    "db: table_scans": (
        "shop-db",
        POSTGRES | {"scanned_table": {"schema": "public", "name": "shop", "rows": 80_000, "scans_per_second": 40.0}},
    ),
    "db: down": ("shop-db", {"answers": "refused", "runtime_state": "stopped"}),
    "db: down by a setting": ("shop-db", {"answers": "refused", "runtime_state": "exited", "refused_setting": "wal_buffers"}),
    "db: unresponsive": ("shop-db", {"answers": "timeout"}),
    "db: starting": ("shop-db", {"answers": "starting"}),
    "db: application_refused": ("shop-db", POSTGRES | {"select_ok": False, "select_reason": "login"}),
    "db: slow": ("shop-db", POSTGRES | {"select_seconds": 5.0}),
    "web: connections_high": ("shop-web", FULL_NGINX),
    "web: down": ("shop-web", GONE_NGINX),
    "web: unresponsive": ("shop-web", NGINX | {"answers": "timeout", "page_ok": False, "page_status": None, "stopped_workers": 1}),
    "web: page_failing": ("shop-web", NGINX | {"page_ok": False, "page_status": 500, "page_from": "nginx"}),
    "web: upstream_failing": ("shop-web", NGINX | {"page_ok": False, "page_status": 503, "page_from": "behind"}),
    "web: upstream_unreachable": ("shop-web", NGINX | BAD_GATEWAY),
    "web: upstream_unreachable at a wrong port": (
        "shop-web",
        NGINX | BAD_GATEWAY | {"undeclared_servers": {"shop": ["127.0.0.1:9"]}, "unused_servers": {"shop": [UPSTREAM]}},
    ),
    "web: upstream_unreachable by what is loaded": ("shop-web", NGINX | BAD_GATEWAY | {"config_loaded": False}),
    "web: upstream_timeout": ("shop-web", NGINX | GATEWAY_TIMEOUT),
    "web: upstream_timeout after a change": ("shop-web", NGINX | GATEWAY_TIMEOUT | {"config_known_good": False}),
    "web: config_invalid": (
        "shop-web",
        NGINX | {"config_loaded": False, "config_known_good": False, "config_error": 'unknown directive "worker_conections"'},
    ),
    "web: certificate_expired": (
        "shop-web",
        NGINX | {"page_ok": False, "page_status": None, "page_error": "tls", "error": "TLS", "certificate_error": "expired"},
    ),
    "web: page_forbidden": ("shop-web", NGINX | {"pages_failing": {"/static/shop.css": 403}, "wrong_modes": {STATIC: "0000"}}),
    "web: slow": ("shop-web", NGINX | {"page_seconds": 5.0}),
    "app: down": ("shop-app", {"answers": "refused", "error": "refused"}),
    "app: unresponsive": ("shop-app", {"answers": "timeout"}),
    "app: page_failing": ("shop-app", HTTP | {"status_code": 503}),
    "app: slow": ("shop-app", HTTP | {"latency_seconds": 5.0}),
}
READINGS |= CONTAINER_READINGS
READINGS |= MANAGED_READINGS
READINGS |= MACHINE_READINGS
"""Incident -> resource, and the reading that opens it; the part after the colon is its symptom. `store`: the cache as a store."""


@cache
def lab_inventory() -> Inventory:
    """The inventory of a lab with every service, as `python -m blocks.register` would read it, and a container."""
    with tempfile.TemporaryDirectory() as directory:
        lab = prepare(Path(directory), None, Path(directory) / "control.sock")
        found = parse_inventory(yaml.safe_dump(lab_file.inventory(lab)), lab_file.environment(lab)).inventory
    return found.model_copy(update={"resources": (*found.resources, BOX_RESOURCE, *MANAGED_RESOURCES, MACHINE_RESOURCE)})


def context_of(incident: str) -> Context:
    """What a planner would be given for it."""
    name, values = READINGS[incident]
    inventory = lab_inventory()
    role = Role.STORE if incident.startswith("store") else inventory.resource(name).role
    resource = inventory.resource(name).model_copy(update={"role": role})
    reading = Reading(values=values)
    findings = load_catalog().probes[resource.kind].judge(reading, resource)
    observation = observe(resource, reading, findings, taken_at=NOW, seconds=0.01)
    return Context(incident=open_incident(inventory.name, observation, NOW), resource=resource, observation=observation)
