"""Who plans for a lab while faults are tried: in a lab alone, and for a time. The policy has its say whoever plans."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from tasks.connecting import Live
from tasks.planners.restart import RestartPlanner
from tasks.planners.runbooks import RunbookPlanner

PlannerChoice = Literal["as configured", "runbook", "gemini", "restart"]
PLANNERS: tuple[str, ...] = tuple(name for name in get_args(PlannerChoice) if name != "as configured")
RUNBOOK, RESTART = RunbookPlanner.name, RestartPlanner.name


async def planner_in_charge(live: Live) -> str | None:
    """The planner that was put in charge of a lab; None: the inventory's own, as everywhere else."""
    return await live.records.planner_in_charge(live.inventory.name, datetime.now(UTC)) if live.inventory.lab else None


@asynccontextmanager
async def in_charge(live: Live, planner: PlannerChoice, seconds: float) -> AsyncIterator[None]:
    """Let a planner make the lab's plans, whoever watches the lab, for the length of a block and at most so many seconds.

    ValueError where the inventory is no lab, or does not say how Gemini is asked.
    """
    if planner == "as configured":
        yield
        return
    name = live.inventory.name
    if not live.inventory.lab:
        raise ValueError(f"planner: inventory {name!r} is no lab; leave it as configured")
    if planner == "gemini" and live.gemini is None:
        raise ValueError(f"planner: inventory {name!r} does not say how Gemini is asked; register it with a section `gemini:`")
    await live.records.put_in_charge(name, planner, datetime.now(UTC) + timedelta(seconds=seconds))
    try:
        yield
    finally:
        await live.records.end_charge(name)
