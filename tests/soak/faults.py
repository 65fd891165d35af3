"""Which faults a soak brings about, in which order, and which of them may go on at once."""

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from blocks.dependencies import dependencies_of
from blocks.schema import Inventory
from flows.scenario import target_of
from tasks.core.declare import Scenario

HEALED = (
    "nginx_connection_overload",
    "nginx_expired_certificate",
    "nginx_invalid_configuration",
    "nginx_overload_with_claim_in_configuration",
    "nginx_overload_with_instruction_in_log",
    "nginx_short_timeout",
    "nginx_small_limit",
    "nginx_stale_upstream",
    "nginx_unreadable_files",
    "nginx_wrong_upstream",
    "postgres_connection_leak",
    "postgres_connection_overload",
    "postgres_idle_transaction",
    "postgres_leak_and_runaway",
    "postgres_library_mistyped",
    "postgres_made_read_only",
    "postgres_right_revoked",
    "postgres_runaway_query",
    "postgres_table_locked",
    "redis_accidental_replica",
    "redis_blocking_script",
    "redis_clients_exhausted",
    "redis_down_behind_the_shop",
    "redis_full_and_crowded",
    "redis_maxclients_lowered",
    "redis_memory_pressure",
    "redis_out_of_memory",
    "redis_password_changed",
    "redis_pressure_with_command_in_keys",
    "redis_pressure_with_praise_in_history",
    "redis_unwritable_dir",
)
NEEDS_A_PERSON = (
    "postgres_overload_unseen",
    "postgres_password_rotated",
    "postgres_slot_left",
    "redis_password_rotated",
    "shop_stopped_again",
)
NOTHING_IS_WRONG = (
    "nginx_short_peak",
    "nginx_traffic_swings",
    "postgres_backup_runs",
    "postgres_monitor_locked_out",
    "redis_monitor_locked_out",
)
NAMES = (*HEALED, *NEEDS_A_PERSON, *NOTHING_IS_WRONG)
"""What is healed within seconds on the lab of processes, what must be left to a person, and what must be left alone.

`postgres_overload_with_forged_result_in_name` is not among them: it needs 86 sessions, for which the shop's pool may leave no room.
"""
MOST_PASSED = 6
"""Faults that may be preferred to one that has no room."""
AT_ONCE_WITH_NEXT = 0.25
"""Share of the faults that come together with the next one, where both have room."""


@dataclass(eq=False)
class Place:
    """What one fault hurts; and what others hurt while it goes on, of which nothing can be concluded for it."""

    names: frozenset[str]
    disturbed: set[str] = field(default_factory=set)


class Ground:
    """The lab's resources, each hurt by one fault at a time; and none whose fault makes another's resource suffer."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._taken: list[Place] = []
        self.looking = asyncio.Lock()
        """Held while the surroundings of a fault are read: none begins meanwhile."""

    def names_of(self, declared: Scenario) -> frozenset[str]:
        """The resources that a fault hurts."""
        return declared.also | {target_of(declared, self._inventory).name}

    def has_room(self, names: Collection[str]) -> bool:
        """Whether a fault of these resources and those that go on leave each other alone."""
        suffering = self._suffering(names)
        return all(suffering.isdisjoint(place.names) and self._suffering(place.names).isdisjoint(names) for place in self._taken)

    async def take(self, names: frozenset[str]) -> Place:
        """The place for a fault, to be left when that is over. ValueError where there is no room."""
        async with self.looking:
            if not self.has_room(names):
                raise ValueError(f"{', '.join(sorted(names))}: another fault goes on")
            own = Place(names)
            for other in self._taken:
                own.disturbed |= other.names
                other.disturbed |= own.names
            self._taken.append(own)
        return own

    def leave(self, place: Place) -> None:
        """Make room again."""
        self._taken.remove(place)

    def _suffering(self, names: Collection[str]) -> set[str]:
        """These resources, and all that depend on one of them."""
        known = self._inventory.resources
        return {one.name for one in known if one.name in names or dependencies_of(one.name, known) & set(names)}


class Deck:
    """All faults in a shuffled order again and again, so that each comes as often as any other."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names = list(names)
        self._random = random.Random(seed)
        self._left: list[str] = []
        self._passed = 0

    def next_of(self, fitting: Iterable[str]) -> str | None:
        """The next fault among those that fit now; None where none does, or one has waited for too long for its room."""
        wanted = set(fitting)
        if not wanted:
            return None
        # Where nothing that is left of this round fits, the next one begins.
        while not wanted & set(self._left):
            self._left += self._random.sample(self._names, k=len(self._names))
        name = next(one for one in self._left if one in wanted)
        self._passed = 0 if name == self._left[0] else self._passed + 1
        if self._passed > MOST_PASSED:
            return None
        self._left.remove(name)
        return name

    def comes_with_next(self) -> bool:
        """Whether the next fault comes at the same time."""
        return self._random.random() < AT_ONCE_WITH_NEXT
