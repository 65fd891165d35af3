"""The parts of an inventory that monitors of their own may watch, each on its own schedule."""

from collections.abc import Iterable, Mapping
from typing import Literal, assert_never

from blocks.schema import CLOUD_KINDS, Kind, Resource

Part = Literal["everything", "local", "cloud"]
NEIGHBOURS: Mapping[Part, Part] = {"local": "cloud", "cloud": "local"}


def is_part(kind: Kind, part: Part) -> bool:
    """Whether a resource of this kind belongs to the part."""
    match part:
        case "everything":
            return True
        case "local":
            return kind not in CLOUD_KINDS
        case "cloud":
            return kind in CLOUD_KINDS
    assert_never(part)


def part_of(resources: Iterable[Resource], part: Part) -> tuple[Resource, ...]:
    """The resources of a part; ValueError where it has none, for a monitor would watch nothing."""
    found = tuple(resource for resource in resources if is_part(resource.kind, part))
    if not found:
        raise ValueError(f"part: the inventory has no resource in {part!r}; choose another, or leave it at 'everything'")
    return found


def monitor_key(inventory: str, part: Part) -> str:
    """Under which name a part's monitor is known: at most one run watches it."""
    return inventory if part == "everything" else f"{inventory}/{part}"


def neighbour_of(part: Part) -> Part | None:
    """The part that another monitor watches beside this one; None beside everything."""
    return NEIGHBOURS.get(part)
