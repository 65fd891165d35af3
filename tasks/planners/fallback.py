"""Gemini while it may and can, else the runbooks. Whatever goes wrong, a plan comes within the deadline and says how it came about."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from blocks.gemini_settings import GeminiSettings
from tasks.core.circuit import Circuit
from tasks.core.errors import EvenkeelError
from tasks.core.models import Context, Plan, Usage
from tasks.planners.gemini_client import Session
from tasks.planners.protocol import Planner

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class ModelPlanner(Protocol):
    """A planner that asks a model and accounts for it in a session."""

    async def plan(self, context: Context, session: Session) -> Plan:
        """A checked plan. An EvenkeelError says why there is none."""


class UseRecords(Protocol):
    """What is kept of a planner between processes."""

    async def circuit(self, planner: str) -> Circuit:
        """How it has done lately."""

    async def claim_trial(self, planner: str, now: datetime, until: datetime) -> bool:
        """Whether the caller is the one who tries it after a pause."""

    async def planner_succeeded(self, planner: str) -> None:
        """Forget its failures."""

    async def planner_failed(self, planner: str, now: datetime) -> Circuit:
        """Count a failure."""

    async def add_use(self, planner: str, day: date, used: Usage) -> None:
        """Add to what it has used on a day."""

    async def use_of(self, planner: str, day: date) -> Usage:
        """What it has used on a day."""


class MeteredModel:
    """A model that is asked within its daily budget, and not while it keeps failing.

    `account` is the name under which failures and use are kept; `open_model` is called only when the model is really asked.
    """

    def __init__(
        self, *, settings: GeminiSettings, open_model: Callable[[], ModelPlanner], records: UseRecords, account: str, logger: Logger
    ) -> None:
        self._settings = settings
        self._open_model = open_model
        self._records = records
        self._account = account
        self._logger = logger

    def session(self) -> Session:
        """The requests of one plan, from now on."""
        return Session(asyncio.get_running_loop().time() + self._settings.total_seconds)

    async def ask(self, context: Context, session: Session) -> tuple[Plan | None, str]:
        """A checked plan within `total_seconds`, or None and why there is none; `session` tells what was used either way."""
        try:
            reason = await self._refusal()
            return (None, reason) if reason is not None else await self._asked(context, session)
        except EvenkeelError as error:
            # The records can't be read or written: neither budget nor circuit is known, so nothing is spent on it any more.
            return None, str(error)

    async def _refusal(self) -> str | None:
        """Why the model is not to be asked now, or None."""
        now = datetime.now(UTC)
        circuit, used = await asyncio.gather(self._records.circuit(self._account), self._records.use_of(self._account, now.date()))
        over = over_budget(used, self._settings)
        if over is not None:
            return over
        if circuit.is_closed():
            return None
        if circuit.blocks(now):
            return f"{circuit.failures} failures in a row, not asked again until {circuit.open_until:%H:%M:%SZ}"
        decided = now + timedelta(seconds=self._settings.total_seconds)
        if await self._records.claim_trial(self._account, now, decided):
            return None
        return f"{circuit.failures} failures in a row, and another process is trying it right now"

    async def _asked(self, context: Context, session: Session) -> tuple[Plan | None, str]:
        """The model's plan, or None and why there is none; the outcome is counted."""
        plan, reason = None, ""
        try:
            async with asyncio.timeout_at(session.deadline):
                plan = await self._open_model().plan(context, session)
        except EvenkeelError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"no plan within {self._settings.total_seconds:g} s"
        except Exception as error:
            # A defect of ours: it must not cost the resource its remedy, and it must be seen.
            self._logger.exception("planning with gemini failed unexpectedly")
            reason = f"{type(error).__name__} while planning; see the log"
        finally:
            if session.usage.requests:
                await self._records.add_use(self._account, datetime.now(UTC).date(), session.usage)
        if plan is None:
            await self._records.planner_failed(self._account, datetime.now(UTC))
        else:
            await self._records.planner_succeeded(self._account)
        return plan, reason


class FallbackPlanner:
    """A model's plan, or a runbook's with a note that says why, and with what the model has used all the same."""

    name = "gemini or runbook"

    def __init__(self, model: MeteredModel, runbook: Planner, logger: Logger) -> None:
        self._model = model
        self._runbook = runbook
        self._logger = logger

    async def plan(self, context: Context) -> Plan:
        """A checked plan, at most `total_seconds` later than a runbook alone would give it."""
        session = self._model.session()
        plan, reason = await self._model.ask(context, session)
        if plan is not None:
            return plan
        plan = await self._runbook.plan(context)
        self._logger.warning("gemini: %s -> runbook", reason)
        return plan.model_copy(update={"usage": session.usage, "notes": (*session.notes, f"gemini: {reason} -> runbook")})


def over_budget(used: Usage, settings: GeminiSettings) -> str | None:
    """Why no more may be spent today, or None."""
    tokens = used.input_tokens + used.output_tokens
    if tokens >= settings.tokens_per_day:
        return f"today's budget is used up: {tokens} of {settings.tokens_per_day} tokens"
    if used.dollars >= settings.dollars_per_day:
        return f"today's budget is used up: {used.dollars:.2f} of {settings.dollars_per_day:.2f} dollars"
    return None
