"""Whether an undo brought everything back."""

import pytest

from tasks.core.models import Change
from tasks.core.verdicts import not_back


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
