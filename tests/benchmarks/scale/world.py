"""Many resources on few servers: each has a client of its own, as if it were a server of its own, except for PostgreSQL.

Of ten resources six are Redis (a connection of its own that is kept, INFO and a write of 20 KB at each probe), three are pages (a URL of
its own, a new connection at each probe) and one is PostgreSQL (all at one address, where one measurement serves those that ask together).
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks.inventory_file import Credential, Registration
from blocks.schema import Inventory, Kind
from compose.cache import answers_ping, cache_program
from compose.description import HOST, LabDescription, Login, free_ports, write_private
from compose.inventory import inventory as lab_inventory
from compose.named_processes import Command, NamedProcesses
from compose.service import clean_environment
from tasks.core.trends import History

CACHES = 20
START_SECONDS = 30.0
HISTORY_POINTS = 72
HISTORY_SPACING_SECONDS = 25.0
SETTINGS = """\
bind {host}
port {port}
dir "{directory}"
logfile ""
save ""
maxclients 4000
maxmemory {mebibytes}mb
maxmemory-policy noeviction
user default off
user {username} on >{password} ~* &* +@all
"""
RULES = {"settle_seconds": 2, "cooldown_seconds": 0, "max_fixes_per_hour": 1000, "max_fixes_per_hour_overall": 1000}


class Caches:
    """Real Redis servers (Valkey), all with the same login."""

    def __init__(self, ports: Sequence[int], login: Login) -> None:
        self.ports = tuple(ports)
        self.login = login

    @property
    def credential(self) -> Credential:
        """The login as an inventory's file gives it."""
        return Credential(username=self.login.username, password=SecretStr(self.login.password))


@asynccontextmanager
async def running_caches(directory: Path, count: int, mebibytes: int) -> AsyncIterator[Caches]:
    """So many servers with that maxmemory for the length of a block."""
    caches = Caches(free_ports(count), Login(username="evenkeel", password=secrets.token_urlsafe(18)))
    processes = NamedProcesses(directory)
    try:
        async with asyncio.TaskGroup() as starting:
            for port in caches.ports:
                starting.create_task(processes.start(f"cache-{port}", _command(directory / str(port), port, caches.login, mebibytes)))
        yield caches
    finally:
        await processes.end(*processes.names)
        await processes.end_all()


def _command(directory: Path, port: int, login: Login, mebibytes: int) -> Command:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "valkey.conf"
    settings = {"host": HOST, "port": port, "directory": directory, "mebibytes": mebibytes}
    write_private(path, SETTINGS.format(**settings, **login.model_dump()))

    async def ready(_pid: int) -> bool:
        return await answers_ping(HOST, port, login)

    return Command((str(cache_program()), str(path)), clean_environment({}), ready, START_SECONDS)


def many(count: int, lab: LabDescription, caches: Caches, records_url: str) -> Registration:
    """An inventory of so many resources, named for their number."""
    (database,) = (one for one in lab_inventory(lab)["resources"] if one["name"] == "shop-db")
    resources: list[dict[str, Any]] = []
    logins: dict[tuple[str, str], Credential] = {}
    for number in range(count):
        place = number % 10
        if place == 0:
            name, purposes = f"database-{number}", ("monitor", "application")
            users = {purpose: lab.database.logins[purpose] for purpose in ("monitor", "application")}
            logins |= {(name, one): Credential(username=user.username, password=SecretStr(user.password)) for one, user in users.items()}
            known = {field: database[field] for field in ("kind", "address", "role", "thresholds", "limits")}
            resources.append({"name": name, **known, "logins": {one: users[one].username for one in purposes}})
        elif place <= 3:
            resources.append({"name": f"page-{number}", "kind": "http", "address": f"{lab.web.url}static/shop.css?page={number}"})
        else:
            logins[f"cache-{number}", "monitor"] = caches.credential
            resources.append(_cache(f"cache-{number}", caches.ports[number % len(caches.ports)], caches))
    return _registration(f"scale-{count}", resources, logins, records_url)


def full(caches: Caches, records_url: str) -> Registration:
    """An inventory of those caches alone, each one a resource whose limit may be raised."""
    resources = [{**_cache(f"cache-{port}", port, caches), "limits": {"memory_mib": 64}} for port in caches.ports]
    logins = {(f"cache-{port}", "monitor"): caches.credential for port in caches.ports}
    return _registration(f"incidents-{len(caches.ports)}", resources, logins, records_url)


def _cache(name: str, port: int, caches: Caches) -> dict[str, Any]:
    # A file of its own to compare with, and so a client of its own.
    own = {"name": name, "address": f"{HOST}:{port}", "config_path": f"/nowhere/{name}.conf"}
    return {"kind": "redis", "role": "cache", "logins": {"monitor": caches.login.username}, **own}


def _registration(name: str, resources: list[dict[str, Any]], logins: dict[tuple[str, str], Credential], records_url: str) -> Registration:
    inventory = Inventory.model_validate({"name": name, "rules": RULES, "resources": resources})
    return Registration(inventory=inventory, logins=logins, records_url=SecretStr(records_url))


def histories(inventory: Inventory) -> dict[str, History]:
    """Half an hour of flat readings of every resource, as a monitor that has run for long has left them."""
    metrics = {Kind.REDIS: ("memory_percent", "clients_percent"), Kind.POSTGRES: ("connections_percent",)}
    now = time.time()
    points = tuple((now - HISTORY_SPACING_SECONDS * (HISTORY_POINTS - place), 12.34) for place in range(HISTORY_POINTS))
    return {one.name: dict.fromkeys(metrics[one.kind], points) for one in inventory.resources if one.kind in metrics}
