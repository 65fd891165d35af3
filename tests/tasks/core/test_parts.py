"""An inventory in parts: each resource is watched by exactly one of the monitors that share it."""

import pytest

from blocks.schema import CLOUD_KINDS, Kind, Resource
from tasks.core.parts import is_part, monitor_key, neighbour_of, part_of


def test_each_kind_is_in_exactly_one_of_two_neighbouring_parts() -> None:
    for kind in Kind:
        assert is_part(kind, "everything")
        assert is_part(kind, "cloud") == (kind in CLOUD_KINDS)
        assert is_part(kind, "local") != is_part(kind, "cloud")


def test_neighbours_name_each_other_and_everything_has_none() -> None:
    assert neighbour_of("local") == "cloud"
    assert neighbour_of("cloud") == "local"
    assert neighbour_of("everything") is None


def test_each_part_has_a_monitor_of_its_own() -> None:
    assert len({monitor_key("lab", part) for part in ("everything", "local", "cloud")}) == 3


def test_a_part_without_a_resource_is_refused() -> None:
    cache = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:6379")
    machine = Resource(name="machine", kind=Kind.COMPUTE_ENGINE, address="vm")
    assert part_of([cache, machine], "local") == (cache,)
    assert part_of([cache, machine], "cloud") == (machine,)
    with pytest.raises(ValueError, match="part: the inventory has no resource in 'cloud'"):
        part_of([cache], "cloud")
