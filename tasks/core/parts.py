"""How several monitors divide an inventory: by part and pool, and within those by hash over the shards that are at work."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, Self, assert_never

from blocks.dependencies import dependencies_of
from blocks.model import Model
from blocks.schema import CLOUD_KINDS, Kind, Resource

SHARE = "share"
Part = Literal["everything", "local", "cloud"]


class Share(Model):
    """What one monitor watches: of an inventory's resources, those of its part and pool that fall to its shard."""

    inventory: str
    part: Part = "everything"
    pool: str = ""
    shard: str = ""

    @property
    def key(self) -> str:
        """Under which name the monitor is known: at most one run at a time watches a share."""
        if self == Share(inventory=self.inventory):
            return self.inventory
        return f"{self.inventory}/{SHARE}/{self.part}/{self.pool}/{self.shard}"

    @classmethod
    def of_key(cls, key: str) -> Self:
        """The share that is known under this name; ValueError if none can be."""
        inventory, *rest = key.split("/")
        if not rest:
            return cls(inventory=inventory)
        _, part, pool, shard = rest
        return cls.model_validate({"inventory": inventory, "part": part, "pool": pool, "shard": shard})

    def covers(self, resource: Resource) -> bool:
        """Whether a resource is of its part and pool, whichever shard it falls to."""
        return is_part(resource.kind, self.part) and self.pool == (resource.pool or "")

    def is_beside(self, other: "Share") -> bool:
        """Whether the two differ in nothing but their shard."""
        return self.model_copy(update={"shard": other.shard}) == other

    def own(self, resources: Iterable[Resource], at_work: Iterable["Share"]) -> frozenset[str]:
        """The names that fall to this share while those `at_work` share the rest.

        By the highest hash of shard and name: a shard that comes or goes moves its own resources, and no other.
        ValueError where the inventory has nothing of this part and pool, for the monitor would watch nothing.
        """
        covered = [resource.name for resource in resources if self.covers(resource)]
        if not covered:
            of_pool = f" of pool {self.pool!r}" if self.pool else ""
            raise ValueError(f"part, pool: the inventory has no resource in {self.part!r}{of_pool}; choose another")
        shards = {self.shard, *(other.shard for other in at_work if self.is_beside(other))}
        return frozenset(name for name in covered if _shard_of(name, shards) == self.shard)


def within_reach(name: str, resources: Sequence[Resource]) -> frozenset[str]:
    """What a resource depends on, directly or not, and is of its pool: what is of another may not be reached from where this one is."""
    pools = {resource.name: resource.pool for resource in resources}
    return frozenset(other for other in dependencies_of(name, resources) if pools[other] == pools[name])


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


def _shard_of(name: str, shards: Collection[str]) -> str:
    return max(shards, key=lambda shard: hashlib.blake2b(f"{shard}/{name}".encode(), digest_size=8).digest())
