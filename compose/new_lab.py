"""How a directory becomes a lab: free ports, fresh passwords."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compose.description import (
    HOST,
    SERVICES,
    Cache,
    Database,
    Endpoint,
    LabDescription,
    LabError,
    Login,
    Web,
    description_path,
    free_ports,
    load,
    save,
)


def prepare(directory: Path, services: tuple[str, ...] | None, control: Path) -> LabDescription:
    """The directory's lab, or a new one with free ports and fresh passwords. Creates the directory with mode 0700."""
    directory = directory.absolute()
    wanted = _checked_services(services)
    unusable = sorted(set(str(directory)) & set("\"'\\${};\n\r"))
    if unusable:
        raise LabError(f"directory: {unusable[0]!r} can't stand in the servers' configuration; choose another directory")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if description_path(directory).exists():
        lab = load(directory).model_copy(update={"services": wanted, "control": control})
        if not {"maintenance", "admin"} <= lab.database.logins.keys():
            raise LabError(f"{directory}: made by an earlier version, without the database's newer logins; remove the directory")
    else:
        if (directory / "postgres").exists():
            raise LabError(f"{directory}: servers' data without the lab.json that has their logins; remove the directory")
        lab = _new(directory, wanted, control)
    save(lab)
    return lab


def _checked_services(services: tuple[str, ...] | None) -> tuple[str, ...]:
    wanted = SERVICES if services is None else services
    for service in wanted:
        if service not in SERVICES:
            raise LabError(f"services: no {service!r}; choose from {', '.join(SERVICES)}")
    needed = {"app": {"database", "cache"}, "traffic": {"web"}}
    for service in wanted:
        missing = needed.get(service, set()) - set(wanted)
        if missing:
            raise LabError(f"services: {service} needs {sorted(missing)[0]}; add it")
    return tuple(service for service in SERVICES if service in wanted)


def _new(directory: Path, services: tuple[str, ...], control: Path) -> LabDescription:
    names = (*SERVICES, "tls")
    port = dict(zip(names, free_ports(len(names)), strict=True))

    return LabDescription(
        directory=directory,
        control=control,
        services=services,
        **new_servers(port, cache_config=directory / "valkey" / "valkey.conf", web_config=directory / "nginx" / "nginx.conf"),
    )


def new_servers(port: Mapping[str, int], *, cache_config: Path, web_config: Path) -> dict[str, Any]:
    """The servers of a new lab as the fields of its description, with fresh passwords."""
    return {
        "database": Database(
            host=HOST,
            port=port["database"],
            dbname="shop",
            logins={
                "monitor": new_login("evenkeel_monitor"),
                "application": new_login("shop"),
                "maintenance": new_login("evenkeel_maintenance"),
                "admin": new_login("dba"),
            },
        ),
        "cache": Cache(
            host=HOST,
            port=port["cache"],
            logins={"monitor": new_login("evenkeel"), "application": new_login("shop")},
            config_path=cache_config,
        ),
        "web": Web(host=HOST, port=port["web"], tls_port=port["tls"], config_path=web_config),
        "app": Endpoint(host=HOST, port=port["app"]),
        "traffic": Endpoint(host=HOST, port=port["traffic"]),
    }


def new_login(username: str) -> Login:
    """A login with a fresh password."""
    return Login(username=username, password=secrets.token_urlsafe(18))
