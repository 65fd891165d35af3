"""The Google Cloud of an inventory: its project under its identity, and the ways into its machines, each opened once."""

import asyncio
import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocks.credentials import Login
from blocks.errors import ConfigurationError
from blocks.gcp import GcpProject
from blocks.schema import CLOUD_KINDS, Inventory, Kind
from tasks.clients.compute_engine import ComputeClient
from tasks.clients.google_access import GoogleCloud
from tasks.clients.login import Login as PlainLogin
from tasks.clients.private_way import PrivateWay
from tasks.core.discovered import Discovery, Found, undeclared
from tasks.core.errors import EvenkeelError, ProbeBroken
from tasks.progress import report

if TYPE_CHECKING:
    from tasks.clients.ssh import Ssh

SSH = ("tasks.clients.ssh", "tasks.clients.ssh_gcloud")


@dataclass
class GoogleClients:
    """What the cloud resources of one inventory share."""

    inventory: Inventory
    logins: dict[tuple[str, str], Login]
    block: GcpProject | None
    _cloud: GoogleCloud | None = None
    _problem: str = ""
    discovery: Discovery | None = None
    """None: the inventory does not ask for one."""
    _ways: "dict[str, Ssh]" = field(default_factory=dict)

    async def open(self) -> None:
        """Make the credentials. What is wrong with them is told by `cloud`, to whoever needs them: other resources go on."""
        if any(resource.cloud.ssh is not None for resource in self.inventory.resources):
            # They take their time to load, and nobody without machines needs them.
            for module in SSH:
                await asyncio.to_thread(importlib.import_module, module)
        if self.block is None:
            self._problem = f"gcp: the inventory {self.inventory.name!r} has no section gcp; add it, and register the inventory again"
            return
        try:
            credentials, identity = await self.block.credentials()
        except ConfigurationError as error:
            self._problem = str(error)
        else:
            self._cloud = GoogleCloud(self.block.project, identity, credentials, progress=report)
            asked = () if self.block.discover is None else self.block.discover.kinds
            for kind in sorted(CLOUD_KINDS & {*asked, *(resource.kind for resource in self.inventory.resources)}):
                await self._cloud.load(kind)

    @property
    def cloud(self) -> GoogleCloud:
        """The project; ProbeBroken says why it can't be asked."""
        if self._cloud is None:
            raise ProbeBroken(self._problem)
        return self._cloud

    async def discovered(self) -> Inventory:
        """The inventory with what is found beside what it declares. What could not be seen is told by `discovery`."""
        if self.block is None or self.block.discover is None:
            return self.inventory
        asked = self.block.discover
        answers = await asyncio.gather(*(self._listed(kind) for kind in asked.kinds))
        found = [one for instances, _ in answers for one in instances]
        unseen = tuple(place for _, places in answers for place in places)
        self.discovery = Discovery(undeclared(self.inventory, found, asked.labels), unseen)
        resources = (*self.inventory.resources, *self.discovery.resources)
        self.inventory = self.inventory.model_copy(update={"resources": resources})
        return self.inventory

    async def _listed(self, kind: Kind) -> tuple[list[Found], list[tuple[str, str]]]:
        try:
            snapshot = await self.cloud.snapshot(kind)
        except EvenkeelError as error:
            return [], [(str(kind), str(error))]
        instances = [Found(kind, one.name, one.location, one.labels) for one in snapshot.instances]
        return instances, [(str(kind), f"{place} did not answer") for place in snapshot.unreachable]

    def ssh(self, name: str) -> "Ssh | None":
        """The one way into a machine, whoever goes in or through; None where the inventory declares none."""
        if name not in self._ways:
            found = self._opened(name)
            if found is None:
                return None
            self._ways[name] = found
        return self._ways[name]

    def way(self, through: str | None) -> PrivateWay:
        """To a private address, through a machine or directly."""
        return PrivateWay() if through is None else PrivateWay(self.ssh(through), through)

    def _opened(self, name: str) -> "Ssh | None":
        from tasks.clients.ssh import KeptSsh
        from tasks.clients.ssh_gcloud import GcloudSsh

        resource = self.inventory.resource(name)
        declared, login = resource.cloud.ssh, self.logins.get((name, "monitor"))
        if declared is None:
            return None
        machine = ComputeClient(resource, self.cloud)
        if declared.by == "gcloud":
            user = None if login is None else login.username
            return GcloudSsh(name, resource.address, self.cloud.project, machine.zone, user)
        if login is None:
            raise ProbeBroken(f"resources.{name}.logins.monitor: SSH needs a user, and as its password the private key; add it")
        key = PlainLogin(login.username, login.password.get_secret_value())
        return KeptSsh(name, machine.address, declared.port, declared.host_keys, key)

    async def close(self) -> None:
        """Close every way in, and the project's connections."""
        ways, self._ways = self._ways, {}
        for way in ways.values():
            await way.close()
        if self._cloud is not None:
            await self._cloud.close()
