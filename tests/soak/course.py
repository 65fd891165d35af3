"""The course of a soak: faults when they are due, samples and deletions beside them, and quiet at the end."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from compose.progress import say
from compose.stack import Stack
from tasks.catalog import load_catalog
from tasks.connecting import live
from tasks.core.scoring import INCONCLUSIVE, ScenarioResult, inconclusive
from tasks.evidence import Fingerprint, fingerprint, harm
from tests.soak.ageing import Ages, age
from tests.soak.faults import NAMES, Deck, Ground, Place
from tests.soak.judging import Ended, not_back
from tests.soak.processes import PREFECT_DATABASE, RUNS, SELF, SERVER, SUPERVISORS, WORKER, of_lab
from tests.soak.samples import Sampler
from tests.soak.trial import INVENTORY, try_fault

EVERY_SECONDS = 20.0
"""From one fault to the next."""
TRIAL_SECONDS = 600.0
AGAIN_SECONDS = 30.0
ROOM_SECONDS = 900.0
AT_REST_SECONDS = 30.0
"""How long is counted what is there before the first fault."""
QUIET_SECONDS = 240.0
POLL_SECONDS = 5.0
# Pools keep some connections that they had to make, and a flow run may just be starting or ending.
TOLERATED = {
    **{f"processes of {name}": 0.0 for name in (SERVER, WORKER, SUPERVISORS)},
    **{f"processes of {of_lab(name)}": 0.0 for name in ("app", "cache", "traffic", "web")},
    f"processes of {of_lab('database')}": 10.0,
    f"processes of {PREFECT_DATABASE}": 16.0,
    f"processes of {RUNS}": 2.0,
    f"descriptors of {RUNS}": 300.0,
    f"descriptors of {PREFECT_DATABASE}": 1600.0,
    f"descriptors of {of_lab('database')}": 600.0,
    f"descriptors of {SELF}": 60.0,
    "connections of Prefect's database": 16.0,
    "connections of lab's PostgreSQL": 6.0,
    "connections of lab's Redis": 6.0,
}
OTHERWISE = 30.0
ZOMBIES = "zombies of "


@dataclass(frozen=True)
class Trial:
    """One fault of the soak, and how it ended. Times count from the first fault, in seconds."""

    number: int
    due_seconds: float
    began_seconds: float
    seconds: float
    """Preparation, sustained health and the look around included."""
    beside: tuple[str, ...]
    """Resources that other faults hurt meanwhile."""
    result: ScenarioResult
    before: str = ""
    """Why its fault did not come about at first."""

    @property
    def ended(self) -> Ended:
        """As it is counted."""
        one = self.result
        return Ended(one.scenario, one.expected, one.outcome, one.problems, one.healthy_seconds, bool(self.before))


@dataclass
class Soak:
    """One soak of a running stack. Whatever ends it, what was found so far stays."""

    running: Stack
    minutes: float
    seed: int
    ages: Ages
    sampler: Sampler
    sample_seconds: float
    trials: list[Trial] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong with the whole, besides trials and trends."""
    at_rest: dict[str, float] = field(default_factory=dict)
    at_the_end: dict[str, float] = field(default_factory=dict)
    is_complete: bool = False
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """From the steady state to the steady state."""
        await self._count_at_rest()
        data = await self._data(None)
        self.sampler.began = time.monotonic()
        beside = [asyncio.create_task(self._sample()), asyncio.create_task(age(self.running, self.ages))]
        try:
            await self._bring_about(beside)
            await self._quiet()
        finally:
            for task in (*self._under_way, *beside):
                task.cancel()
            await asyncio.gather(*self._under_way, *beside, return_exceptions=True)
        await self.sampler.take()
        self.problems += [f"the shop's data at the end: {told}" for told in harm(data, await self._data(data.last_order))]
        self.is_complete = True

    async def _count_at_rest(self) -> None:
        """The most that there is of everything while nothing is wrong."""
        end = time.monotonic() + AT_REST_SECONDS
        while time.monotonic() < end:
            now = await self.sampler.counts()
            self.at_rest = {name: max(count, self.at_rest.get(name, 0)) for name, count in now.items()}
            await asyncio.sleep(POLL_SECONDS)

    async def _data(self, last_order: int | None) -> Fingerprint:
        async with live(INVENTORY) as opened:
            return await fingerprint(opened, last_order)

    async def _sample(self) -> None:
        while True:
            started = time.monotonic()
            await self.sampler.take()
            await asyncio.sleep(max(self.sample_seconds - (time.monotonic() - started), 1))

    async def _bring_about(self, beside: list[asyncio.Task[None]]) -> None:
        async with live(INVENTORY) as opened:
            inventory = opened.inventory
        ground, deck, known = Ground(inventory), Deck(NAMES, self.seed), load_catalog().scenarios
        names = {name: ground.names_of(known[name]) for name in NAMES}
        comes_early = False
        for number in range(1, round(self.minutes * 60 / EVERY_SECONDS) + 1):
            due = (number - 1) * EVERY_SECONDS
            if not (comes_early and any(ground.has_room(one) for one in names.values())):
                await asyncio.sleep(max(due - self._now(), 0))
            name = await self._next(ground, deck, names)
            if self._now() >= self.minutes * 60:
                number -= 1
                break
            place = await ground.take(names[name])
            task = asyncio.create_task(self._one(number, due, name, ground, place))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            comes_early = deck.comes_with_next()
            for one in beside:
                if one.done():
                    one.result()
        await asyncio.gather(*self._under_way)
        missing = {*range(1, number + 1)} - {one.number for one in self.trials}
        self.problems += [f"fault {one} came to no end" for one in sorted(missing)]

    async def _next(self, ground: Ground, deck: Deck, names: Mapping[str, frozenset[str]]) -> str:
        """The next fault that has room, as soon as one has."""
        async with asyncio.timeout(ROOM_SECONDS):
            while (name := deck.next_of(one for one in NAMES if ground.has_room(names[one]))) is None:
                await asyncio.wait(self._under_way, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return name

    async def _one(self, number: int, due: float, name: str, ground: Ground, place: Place) -> None:
        began = self._now()
        try:
            result, before = await self._tried(name, ground, place), ""
            if result.outcome == INCONCLUSIVE:
                before = result.message
                # What the monitor saw of the fault that failed is over by then.
                await asyncio.sleep(AGAIN_SECONDS)
                result = await self._tried(name, ground, place)
        finally:
            ground.leave(place)
        trial = Trial(number, due, round(began, 1), round(self._now() - began, 1), tuple(sorted(place.disturbed)), result, before)
        self.trials.append(trial)
        self._tell(trial)

    async def _tried(self, name: str, ground: Ground, place: Place) -> ScenarioResult:
        declared = load_catalog().scenarios[name]
        (found,) = await asyncio.gather(asyncio.wait_for(try_fault(declared, ground, place), TRIAL_SECONDS), return_exceptions=True)
        if isinstance(found, ScenarioResult):
            return found
        if not isinstance(found, Exception):
            raise found
        return inconclusive(declared, f"{type(found).__name__}: {found}")

    def _tell(self, trial: Trial) -> None:
        one = trial.result
        healthy = "" if one.healthy_seconds is None else f", healthy after {one.healthy_seconds:.1f} s"
        again = f", at first not brought about ({trial.before})" if trial.before else ""
        wrong = f" - WRONG: {'; '.join(one.problems)}" if one.problems else ""
        beside = f" beside {', '.join(trial.beside)}" if trial.beside else ""
        say(f"{trial.number}: {one.scenario}{beside}: {one.outcome}{healthy}, {trial.seconds:.0f} s in all{again}{wrong}")

    async def _quiet(self) -> None:
        """Wait until no more is there than before the first fault; what stays is a problem."""
        say("all faults are over; waiting for quiet")
        tolerated = TOLERATED | {name: 0.0 for name in self.at_rest if name.startswith(ZOMBIES)}
        deadline = time.monotonic() + QUIET_SECONDS
        while True:
            self.at_the_end = await self.sampler.counts()
            more = not_back(self.at_rest, self.at_the_end, tolerated, OTHERWISE)
            if not more or time.monotonic() >= deadline:
                self.problems += [f"did not come back: {one}" for one in more]
                break
            await asyncio.sleep(POLL_SECONDS)
        async with live(INVENTORY) as opened:
            self.problems += [f"{one.fix_id} of {one.resource} is still open" for one in await opened.records.open_fixes(INVENTORY)]

    def _now(self) -> float:
        return time.monotonic() - self.sampler.began
