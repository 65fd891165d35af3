"""Whether a plan did what it was for, and an undo brought everything back."""

import pytest

from blocks.schema import Kind, Resource
from tasks.core.models import Change, Health
from tasks.core.verdicts import exonerated, lessened, not_back
from tests.tasks.unwell import observation_of

CACHE = Resource(name="cache", kind=Kind.REDIS, address="127.0.0.1:1")


@pytest.mark.parametrize(
    ("after_undo", "differing"),
    [
        ({"maxmemory_mib": 64.0, "policy": "noeviction", "keys": 100}, []),
        ({"maxmemory_mib": 66.0, "policy": "noeviction", "keys": 900}, []),  # load moves figures a little; keys were not changed
        ({"maxmemory_mib": 96.0, "policy": "noeviction", "keys": 100}, ["maxmemory_mib was 64.0, is 96.0"]),
        ({"maxmemory_mib": 64.0, "policy": "allkeys-lru", "keys": 100}, ["policy was noeviction, is allkeys-lru"]),
        ({"policy": "noeviction"}, ["maxmemory_mib was 64.0, is None"]),
    ],
)
def test_what_an_undo_did_not_bring_back_is_named(after_undo: dict[str, float | str], differing: list[str]) -> None:
    made = Change(
        before={"maxmemory_mib": 64.0, "policy": "noeviction", "keys": 100},
        after={"maxmemory_mib": 96.0, "policy": "allkeys-lru", "keys": 100},
    )
    assert not_back(made, Change(before=made.after, after=dict(after_undo))) == differing


@pytest.mark.parametrize(
    ("before", "after", "remedied", "kept"),
    [
        ({"memory_high", "clients_high"}, {"clients_high"}, {"memory_high", "write_refused"}, True),
        ({"memory_high", "clients_high"}, {"memory_high"}, {"memory_high"}, False),
        ({"memory_high", "clients_high"}, {"clients_high", "slow"}, {"memory_high"}, False),  # something new has come
        ({"memory_high"}, {"slow"}, {"memory_high"}, False),
        ({"memory_high", "clients_high"}, {"memory_high"}, {"down"}, False),  # went by itself: not what the steps are for
        ({"memory_high", "write_refused"}, {"memory_high"}, {"memory_high", "write_refused"}, False),  # half of it
    ],
)
def test_what_did_its_part_is_kept(before: set[str], after: set[str], remedied: set[str], kept: bool) -> None:
    assert lessened(observation_of(CACHE, *before), observation_of(CACHE, *after), remedied) is kept


@pytest.mark.parametrize(
    ("before", "with_steps", "without_steps", "is_exonerated"),
    [
        ({"memory_high"}, {"clients_exhausted"}, {"clients_exhausted", "memory_high"}, True),
        ({"memory_high"}, {"clients_exhausted"}, {"memory_high"}, False),  # what had come went with the steps: they may have caused it
        (
            {"memory_high"},
            {"clients_exhausted"},
            {"clients_exhausted"},
            False,
        ),  # its own trouble did not come back: nothing shows that it helped
        ({"memory_high"}, {"memory_high", "slow"}, {"memory_high", "slow"}, False),  # it did not help
        ({"memory_high"}, set(), {"memory_high"}, False),  # nothing had come
    ],
)
def test_what_did_its_part_and_was_taken_back_for_something_else_is_told_apart(
    before: set[str], with_steps: set[str], without_steps: set[str], is_exonerated: bool
) -> None:
    first, after, restored = (observation_of(CACHE, *symptoms) for symptoms in (before, with_steps, without_steps))
    assert exonerated(first, after, restored, {"memory_high", "write_refused"}) is is_exonerated


def test_an_inconclusive_reading_keeps_nothing() -> None:
    unknown = observation_of(CACHE).model_copy(update={"health": Health.UNKNOWN})
    assert not lessened(observation_of(CACHE, "memory_high", "slow"), unknown, {"memory_high"})
    assert not lessened(None, observation_of(CACHE), {"memory_high"})
