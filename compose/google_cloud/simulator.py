"""The simulator's control plane: everything that listens, around one project."""

import contextlib
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from compose.certificates import write_domain_certificate
from compose.description import HOST
from compose.google_cloud.access import Access
from compose.google_cloud.admin import admin_app
from compose.google_cloud.description import CloudDescription, PlaneAddress
from compose.google_cloud.faults import Faults
from compose.google_cloud.journal import Journal
from compose.google_cloud.listening import serving
from compose.google_cloud.metadata_server import metadata_app
from compose.google_cloud.planes import Planes
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
        self._token = secrets.token_urlsafe(24)
        self._stack = contextlib.AsyncExitStack()
        self._ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Listen on every port."""
        write_domain_certificate(self._directory, self._authority, "*.googleapis.com", CERTIFICATE)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.project.operations.clear)
            rest = RestApis(self.project, self.journal, self.faults, lambda port: proxy.cut(port))
            proxy = Proxy({}, await stack.enter_async_context(serving(rest, self._directory / CERTIFICATE)))
            await stack.enter_async_context(proxy)
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
