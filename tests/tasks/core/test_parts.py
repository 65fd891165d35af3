"""Several monitors on one inventory: each resource falls to exactly one of them, and to few others when one comes or goes."""

import pytest

from blocks.schema import CLOUD_KINDS, Kind, Resource
from tasks.core.parts import Share, is_part, within_reach

MANY = [Resource(name=f"cache-{number}", kind=Kind.REDIS, address="127.0.0.1:1") for number in range(400)]


def shards(*names: str) -> list[Share]:
    return [Share(inventory="lab", shard=name) for name in names]


def test_each_kind_is_in_exactly_one_of_two_parts() -> None:
    for kind in Kind:
        assert is_part(kind, "everything")
        assert is_part(kind, "cloud") == (kind in CLOUD_KINDS)
        assert is_part(kind, "local") != is_part(kind, "cloud")


@pytest.mark.parametrize(
    "share",
    [
        Share(inventory="lab"),
        Share(inventory="lab", part="cloud"),
        Share(inventory="lab", pool="berlin", shard="2"),
        Share(inventory="lab", shard="a"),
    ],
)
def test_a_share_is_found_again_by_its_key(share: Share) -> None:
    assert Share.of_key(share.key) == share


def test_every_resource_falls_to_exactly_one_shard_and_each_gets_about_its_part() -> None:
    at_work = shards("a", "b", "c", "d")
    owned = [share.own(MANY, at_work) for share in at_work]
    assert sum(map(len, owned)) == len(frozenset().union(*owned)) == len(MANY)
    assert all(50 <= len(names) <= 150 for names in owned)


def test_a_shard_that_goes_moves_no_resource_but_its_own() -> None:
    four, three = shards("a", "b", "c", "d"), shards("a", "b", "c")
    for share in three:
        assert share.own(MANY, four) <= share.own(MANY, three)


def test_a_shard_counts_itself_before_others_know_of_it() -> None:
    (fresh,) = shards("e")
    assert 0 < len(fresh.own(MANY, shards("a", "b"))) < len(MANY)


def test_pools_and_parts_share_nothing() -> None:
    far = Resource(name="far", kind=Kind.REDIS, address="127.0.0.1:1", pool="berlin")
    machine = Resource(name="machine", kind=Kind.COMPUTE_ENGINE, address="vm")
    here = Share(inventory="lab", part="local")
    others = [Share(inventory="lab", part="cloud"), Share(inventory="lab", part="local", pool="berlin"), *shards("a")]
    resources = [MANY[0], far, machine]
    assert here.own(resources, others) == {MANY[0].name}
    assert [share.own(resources, [here]) for share in others[:2]] == [{"machine"}, {"far"}]


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the inventory has no resource in 'cloud' of pool 'berlin'"):
        Share(inventory="lab", part="cloud", pool="berlin").own(MANY, [])


def test_a_dependency_of_another_pool_is_not_within_reach() -> None:
    def resource(name: str, pool: str | None, *depends_on: str) -> Resource:
        return Resource(name=name, kind=Kind.HTTP, address="http://127.0.0.1:1/", pool=pool, depends_on=depends_on)

    known = [
        resource("page", "berlin", "api"),
        resource("api", "berlin", "database", "cache"),
        resource("database", None),
        resource("cache", "berlin", "disk"),
        resource("disk", "paris"),
    ]
    assert within_reach("page", known) == {"api", "cache"}
    assert within_reach("database", known) == frozenset()
