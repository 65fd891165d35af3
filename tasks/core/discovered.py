"""Instances that were found in Google Cloud and not declared one by one: which of them join an inventory, and under which names. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from blocks.cloud_declared import CloudDeclared
from blocks.schema import Inventory, Kind, Resource, Role

ROLE_LABEL = "evenkeel-role"
"""cache: its data may be dropped; anything else, or no such label: store."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Found:
    """An instance as Google lists it."""

    kind: Kind
    name: str
    location: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Discovery:
    """What a look around found, and what it could not see."""

    resources: tuple[Resource, ...] = ()
    """In addition to what is declared."""
    unseen: tuple[tuple[str, str], ...] = field(default=())
    """Kind, and a location that did not answer or why the kind could not be listed."""


def undeclared(inventory: Inventory, found: Iterable[Found], labels: Mapping[str, str]) -> tuple[Resource, ...]:
    """Those with all of the labels that the inventory does not declare, as resources under names that are free.

    Two instances of one name (in two zones, or of two kinds) get their location, then their kind, behind it.
    """
    taken = {resource.name for resource in inventory.resources}
    added: list[Resource] = []
    wanted = [one for one in found if labels.items() <= one.labels.items() and not _is_declared(inventory, one)]
    for one in sorted(wanted, key=lambda one: (one.kind, one.name, one.location)):
        name = next((name for name in _names(one) if name not in taken), None)
        if name is None:
            continue
        taken.add(name)
        role = Role.CACHE if one.labels.get(ROLE_LABEL) == Role.CACHE else Role.STORE
        added.append(Resource(name=name, kind=one.kind, address=one.name, role=role, cloud=CloudDeclared(location=one.location)))
    return tuple(added)


def _is_declared(inventory: Inventory, one: Found) -> bool:
    return any(
        resource.kind is one.kind and resource.address == one.name and resource.cloud.location in {None, one.location}
        for resource in inventory.resources
    )


def _names(one: Found) -> Iterator[str]:
    kind = one.kind.replace("_", "-")
    for name in (one.name, f"{one.name}-{one.location}", f"{one.name}-{kind}", f"{one.name}-{one.location}-{kind}"):
        if NAME.fullmatch(name):
            yield name
