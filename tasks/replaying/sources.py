"""Where past incidents come from, and who is asked again."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blocks.gemini import load_gemini
from blocks.records import load_records_url
from tasks.catalog import Catalog, load_catalog
from tasks.core.errors import EvenkeelError
from tasks.core.replay import Archive, Comparison, Planned, SavedIncident
from tasks.planners.fallback import Logger
from tasks.records.repository import Records
from tasks.replaying.again import Ask, PlannerChoice, asking, plan_again
from tasks.replaying.model import replay_model

AT_ONCE = 4
REMEDY = "give a file that `python -m tasks.records export` wrote"


class ReplayError(EvenkeelError):
    """What was asked for can't be planned again."""


@dataclass(frozen=True)
class Asked:
    """Which incidents are planned again, and how."""

    inventory: str
    planner: PlannerChoice = "runbook"
    model: str = ""
    fixes: Sequence[str] = ()
    newest: int = 20
    file: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""


@dataclass(frozen=True)
class Replay:
    """The incidents, and who is asked."""

    asked: Asked
    incidents: Sequence[SavedIncident]
    ask: Ask
    catalog: Catalog

    @property
    def plans(self) -> list[tuple[SavedIncident, Planned]]:
        """Every plan whose question was kept."""
        return [(saved, planned) for saved in self.incidents for planned in saved.planned]

    async def again(self, saved: SavedIncident, planned: Planned) -> Comparison:
        """One of them, made again. ReplayError names a rule that is none."""
        try:
            return await plan_again(saved, planned, self.ask, self.catalog, self.asked.rules)
        except ValidationError as error:
            problems = [f"rules.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
            raise ReplayError("; ".join(problems)) from None


@asynccontextmanager
async def opened(asked: Asked, logger: Logger) -> AsyncIterator[Replay]:
    """The past incidents and the planner. No probe and no tool is opened: nothing but records and model is reached.

    ReplayError says what is missing.
    """
    catalog = load_catalog()
    async with AsyncExitStack() as stack:
        records = None
        if not asked.file or asked.planner == "gemini":
            records = await stack.enter_async_context(await Records.open(await load_records_url()))
        incidents = await _recorded(records, asked) if records is not None and not asked.file else read_archive(Path(asked.file)).incidents
        open_model = None
        if asked.planner == "gemini" and records is not None:
            block = await load_gemini(asked.inventory)
            if block is None:
                remedy = "add it and register the inventory again, or choose another planner"
                raise ReplayError(f"planner: the inventory {asked.inventory!r} has no section `gemini`; {remedy}")
            account = f"gemini/{asked.inventory}/replan"
            given = replay_model(block, catalog, records, account=account, model=asked.model, instructions=asked.prompt, logger=logger)
            open_model = await stack.enter_async_context(given)
        yield Replay(asked, incidents, asking(asked.planner, catalog, open_model), catalog)


async def _recorded(records: Records, asked: Asked) -> Sequence[SavedIncident]:
    if not asked.fixes:
        return await records.saved_incidents(inventory=asked.inventory, limit=asked.newest)
    found = await records.saved_incidents(ids=asked.fixes)
    missing = sorted(set(asked.fixes) - {saved.fix.id for saved in found})
    if missing:
        raise ReplayError(f"fixes: no fix {missing[0]!r} is on record; `python -m tasks.records list` shows which there are")
    return found


def read_archive(path: Path) -> Archive:
    """The incidents of a file. ReplayError says what is wrong with it, without quoting it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReplayError(f"file: {path}: {error.strerror}; {REMEDY}") from error
    except UnicodeDecodeError:
        raise ReplayError(f"file: {path}: is no text; {REMEDY}") from None
    try:
        return Archive.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise ReplayError(f"file: {path}: {where}: {first['msg']}; {REMEDY}") from None


async def all_again(replay: Replay) -> list[Comparison]:
    """Every plan made again, a few at once, in the incidents' order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(saved: SavedIncident, planned: Planned) -> Comparison:
        async with gate:
            return await replay.again(saved, planned)

    return await asyncio.gather(*(one(*plan) for plan in replay.plans))
