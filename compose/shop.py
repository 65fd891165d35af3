"""The sample shop and its visitors: programs of a package of their own, run and never imported."""

import os
import signal
import sys
from collections.abc import Mapping

from compose.description import Endpoint, LabDescription, shop_path
from compose.service import Service, answers, answers_well


def _python(name: str, module: str, lab: LabDescription, endpoint: Endpoint, environment: Mapping[str, str], path: str) -> Service:
    directory = lab.directory / "shop"
    search_path = [part for part in (shop_path(), os.environ.get("PYTHONPATH")) if part]

    async def prepare() -> None:
        directory.mkdir(mode=0o700, exist_ok=True)

    async def ready(_pid: int) -> bool:
        return await answers(endpoint.host, endpoint.port, path)

    async def healthy() -> bool:
        return await answers_well(endpoint.host, endpoint.port, path)

    return Service(
        name=name,
        command=(sys.executable, "-m", module),
        directory=directory,
        log=lab.log_path(name),
        port=endpoint.port,
        ready=ready,
        stop_signals=((signal.SIGTERM, 4),),
        environment={"PYTHONPATH": os.pathsep.join(search_path), "PYTHONUNBUFFERED": "1", **environment},
        prepare=prepare,
        healthy=healthy,
    )


def app(lab: LabDescription) -> Service:
    """The shop: ready when it answers at all, also while a server that it depends on is down."""
    environment = {
        "SHOP_DATABASE_URL": lab.database.conninfo("application"),
        "SHOP_CACHE_URL": lab.cache.url("application"),
        "SHOP_LISTEN": f"{lab.app.host}:{lab.app.port}",
        "SHOP_PUBLIC_URL": f"http://{lab.web.host}:{lab.web.port}",
    }
    return _python("app", "shop", lab, lab.app, environment, "/healthz")


def traffic(lab: LabDescription) -> Service:
    """The visitors of the page."""
    environment = {
        "TRAFFIC_TARGET": f"http://{lab.web.host}:{lab.web.port}",
        "TRAFFIC_LISTEN": f"{lab.traffic.host}:{lab.traffic.port}",
    }
    return _python("traffic", "shop.traffic", lab, lab.traffic, environment, "/stats")
