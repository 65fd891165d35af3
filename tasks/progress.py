"""How far a step has come that takes its time: lines in its log, and a progress artifact in the UI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

DONE = 100.0


@dataclass
class Progress:
    """Of one step. Artifacts are written beside the work, the latest figure only."""

    target: str
    what: str = ""
    percent: float = 0
    _artifact: UUID | None = None
    _written: float | None = None
    _writing: asyncio.Task[None] | None = field(default=None, repr=False)

    def tell(self, what: str, percent: float | None) -> None:
        """Log it, and see to it that the UI shows it."""
        said = "under way" if percent is None else f"{percent:g} %"
        get_run_logger().info("%s: %s", what, said)
        self.what, self.percent = what, max(percent or 0, 0)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._written != self.percent:
            percent = self.percent
            if self._artifact is None:
                self._artifact = await acreate_progress_artifact(percent, key=f"progress-{self.target}", description=self.what)
            else:
                await aupdate_progress_artifact(self._artifact, percent, description=self.what)
            self._written = percent

    async def close(self) -> None:
        """Wait until what was told last is shown."""
        if self._writing is not None:
            await self._writing


_of_this_step: ContextVar[Progress | None] = ContextVar("evenkeel_progress", default=None)


@asynccontextmanager
async def shown_progress(target: str) -> AsyncIterator[None]:
    """What `report` hears within is shown as the progress of a step on that resource."""
    progress = Progress(target)
    token = _of_this_step.set(progress)
    try:
        yield
    finally:
        _of_this_step.reset(token)
        await progress.close()


def report(what: str, percent: float | None) -> None:
    """Say how far an operation is, in percent where that is known. Outside of a step nobody hears it."""
    progress = _of_this_step.get()
    if progress is not None:
        progress.tell(what, percent)
