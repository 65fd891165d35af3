"""The simulator's control plane: everything that listens, around one project."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compose.certificates import write_domain_certificate
from compose.description import HOST
from compose.google_cloud.access import Access
from compose.google_cloud.admin import admin_app
from compose.google_cloud.description import CloudDescription, PlaneAddress
from compose.google_cloud.faults import Faults
from compose.google_cloud.journal import Journal
from compose.google_cloud.listening import serving
from compose.google_cloud.metadata_server import metadata_app
from compose.google_cloud.monitoring import MONITORING, Monitoring, serving_monitoring
from compose.google_cloud.planes import Planes
from compose.google_cloud.points import Points
from compose.google_cloud.project import Project
from compose.google_cloud.proxy import Proxy
from compose.google_cloud.rest import RestApis
from compose.google_cloud.world import World

BARE = Planes({}, {}, {})
CERTIFICATE = "googleapis"


class Simulator:
    """`async with Simulator(directory, world, planes) as simulator:` serves; `simulator.description()` says where."""

    def __init__(self, directory: Path, world: World, planes: Planes = BARE, authority: Path | None = None) -> None:
        self._directory = directory
        self._authority = authority or directory
        self.journal = Journal()
        self.faults = Faults()
        self.access = Access(world, directory)
        self.project = Project(world, self.access, planes)
        self.points = Points(self.project)
        self._proxy: Proxy | None = None
        self._token = secrets.token_urlsafe(24)
        self._stack = contextlib.AsyncExitStack()
        self._ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Listen on every port."""
        write_domain_certificate(self._directory, self._authority, "*.googleapis.com", CERTIFICATE)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.project.operations.clear)
            rest = RestApis(self.project, self.journal, self.faults, self._cut)
            monitoring = Monitoring(self.project, self.points, self.journal, self.faults, self._cut)
            certificate = self._directory / CERTIFICATE
            metrics_port = await stack.enter_async_context(serving_monitoring(monitoring, certificate))
            rest_port = await stack.enter_async_context(serving(rest, certificate))
            proxy = self._proxy = await stack.enter_async_context(Proxy({MONITORING: metrics_port}, rest_port))
            await stack.enter_async_context(_running(self.points.sample_forever()))
            world = self.project.world
            metadata = metadata_app(world.project, world.project_number, self.access, self.faults)
            admin = admin_app(self.project, self.journal, self.faults, self._token)
            self._ports = {
                "proxy": proxy.port,
                "metadata": await stack.enter_async_context(serving(metadata)),
                "admin": await stack.enter_async_context(serving(admin)),
            }
            self._stack = stack.pop_all()
        return self

    def _cut(self, port: int) -> None:
        assert self._proxy is not None
        self._proxy.cut(port)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop listening, and end what is under way."""
        await self._stack.aclose()

    def description(self, planes: dict[str, PlaneAddress] | None = None) -> CloudDescription:
        """Where everything is."""
        return CloudDescription(
            project=self.project.id,
            proxy_url=f"http://{HOST}:{self._ports['proxy']}",
            admin_url=f"http://{HOST}:{self._ports['admin']}",
            admin_token=self._token,
            metadata_host=f"{HOST}:{self._ports['metadata']}",
            ca_path=self._authority / "ca.crt",
            key_paths=self.access.key_paths,
            planes=planes or {},
        )


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Beside the block, and ended with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
