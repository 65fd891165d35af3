"""What the identity of an inventory may do in its project, asked of Google, against what the probes and tools declare."""

import asyncio
from dataclasses import dataclass
from typing import Any

from blocks.schema import CLOUD_KINDS, Inventory, Kind
from tasks.catalog import Catalog
from tasks.clients.google_access import GoogleCloud
from tasks.core.errors import EvenkeelError, ToolFailed
from tasks.core.permissions import IAP, Need, grants, needs
from tasks.google_clients import GoogleClients

ASKED_AT_ONCE = 100


@dataclass(frozen=True)
class Checked:
    """What was found."""

    project: str
    identity: str
    member: str
    held: dict[Need, bool | None]
    """None: Google does not say, for it knows the permission on single instances only."""
    listed: dict[str, str]
    """Kind -> how many instances are seen, or why none are."""
    problems: tuple[str, ...] = ()

    @property
    def lacking(self) -> tuple[Need, ...]:
        """What it may not do."""
        return tuple(need for need, held in self.held.items() if held is False)

    @property
    def remedy(self) -> tuple[str, ...]:
        """Commands that grant all that is needed."""
        return grants(self.project, self.member, (need.permission for need in self.held)) if self.lacking else ()

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if self.problems:
            return "; ".join(self.problems)
        if self.lacking:
            names = ", ".join(need.permission for need in self.lacking)
            return f"{self.identity} lacks {len(self.lacking)} of {len(self.held)} permissions in {self.project}: {names}"
        return f"{self.identity} has all {len(self.held)} permissions in {self.project}"


async def check_google(google: GoogleClients, inventory: Inventory, catalog: Catalog, *, only_reading: bool = False) -> Checked:
    """Ask which of the needed permissions the identity has in the whole project, and list what it sees. Changes nothing.

    What is granted on single instances alone counts as lacking. ProbeBroken: there is no identity.
    """
    cloud = google.cloud
    discover = None if google.block is None else google.block.discover
    kinds = CLOUD_KINDS & {*(resource.kind for resource in inventory.resources), *(() if discover is None else discover.kinds)}
    wanted = [need for need in needs(catalog.probes, catalog.tools.values(), kinds) if need.reads or not only_reading]
    if any(resource.cloud.ssh is not None and resource.cloud.ssh.by == "gcloud" for resource in inventory.resources):
        wanted += [Need(permission, ("gcloud compute ssh",), reads=True) for permission in IAP]
    problems: list[str] = []
    held: dict[Need, bool | None] = dict.fromkeys(wanted)
    try:
        held = await _held(cloud, wanted)
    except EvenkeelError as error:
        problems.append(str(error))
    listed = dict(await asyncio.gather(*(_seen(cloud, kind) for kind in sorted(kinds))))
    return Checked(cloud.project, cloud.identity, cloud.who.member, held, listed, tuple(problems))


async def _held(cloud: GoogleCloud, wanted: list[Need]) -> dict[Need, bool | None]:
    names = [need.permission for need in wanted]
    try:
        granted = await _granted(cloud, names)
    except ToolFailed:
        # One that Google does not know on projects makes it refuse all.
        singly = await asyncio.gather(*(_granted(cloud, [name]) for name in names), return_exceptions=True)
        if all(isinstance(answer, BaseException) for answer in singly):
            raise
        return {need: None if isinstance(answer, BaseException) else bool(answer) for need, answer in zip(wanted, singly, strict=True)}
    return {need: need.permission in granted for need in wanted}


async def _granted(cloud: GoogleCloud, names: list[str]) -> set[str]:
    def ask(timeout: float) -> Any:
        request = cloud.projects.testIamPermissions(resource=cloud.project, body={"permissions": names[:ASKED_AT_ONCE]})
        return cloud.execute(request, timeout)

    answer = await cloud.call("permissions (API cloudresourcemanager.googleapis.com)", ask)
    return set(answer.get("permissions") or ())


async def _seen(cloud: GoogleCloud, kind: Kind) -> tuple[str, str]:
    try:
        found = await cloud.snapshot(kind)
    except EvenkeelError as error:
        return str(kind), f"can't be listed: {error}"
    hidden = f"; {', '.join(found.unreachable)} did not answer" if found.unreachable else ""
    return str(kind), f"{len(found.instances)} instance(s) seen{hidden}"
