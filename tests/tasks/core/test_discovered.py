"""Which of the found instances join an inventory, and under which names."""

from blocks.cloud_declared import CloudDeclared
from blocks.schema import Inventory, Kind, Resource, Role
from tasks.core.discovered import Found, undeclared

VM, SQL, CACHE = Kind.COMPUTE_ENGINE, Kind.CLOUD_SQL, Kind.MEMORYSTORE
INVENTORY = Inventory(
    name="cloud",
    resources=(
        Resource(name="vm", kind=VM, address="web-1"),
        Resource(name="orders", kind=VM, address="other", cloud=CloudDeclared(location="europe-west4-a")),
    ),
)
SHOP = {"app": "shop"}


def test_what_is_declared_wins_and_what_has_not_every_label_stays_out() -> None:
    found = [
        Found(VM, "web-1", "europe-west4-a", SHOP),
        Found(VM, "other", "europe-west4-a", SHOP),
        Found(VM, "web-2", "europe-west4-a", {"app": "office"}),
        Found(VM, "web-3", "europe-west4-a", SHOP | {"env": "prod"}),
    ]
    assert [one.name for one in undeclared(INVENTORY, found, SHOP)] == ["web-3"]
    assert [one.name for one in undeclared(INVENTORY, found, {})] == ["web-2", "web-3"]


def test_the_same_name_elsewhere_or_of_another_kind_is_told_apart() -> None:
    found = [
        Found(VM, "web", "us-central1-a", {}),
        Found(VM, "web", "europe-west4-a", {}),
        Found(SQL, "orders", "europe-west4", {}),
        Found(CACHE, "web", "europe-west4", {"evenkeel-role": "cache"}),
        Found(VM, "other", "us-central1-a", {}),
    ]
    added = undeclared(INVENTORY, found, {})
    assert {one.name: (one.kind, one.address, one.cloud.location) for one in added} == {
        "orders-europe-west4": (SQL, "orders", "europe-west4"),
        "other": (VM, "other", "us-central1-a"),
        "web": (VM, "web", "europe-west4-a"),
        "web-us-central1-a": (VM, "web", "us-central1-a"),
        "web-europe-west4": (CACHE, "web", "europe-west4"),
    }
    assert [one.name for one in added if one.role is Role.CACHE] == ["web-europe-west4"]
    merged = INVENTORY.model_copy(update={"resources": (*INVENTORY.resources, *added)})
    assert Inventory.model_validate(merged.model_dump()) == merged
