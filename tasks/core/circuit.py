"""When a planner that keeps failing is left alone, and when it is tried again. Pure; the records keep the state."""

from datetime import datetime, timedelta

from pydantic import Field

from blocks.model import Model

FAILURES_TO_OPEN = 3
FIRST_PAUSE = timedelta(seconds=60)
LONGEST_PAUSE = timedelta(minutes=30)


class Circuit(Model):
    """How a planner has done lately."""

    failures: int = Field(0, ge=0, description="Failures since its last success.")
    open_until: datetime | None = Field(None, description="Until then it is not asked; afterwards one caller tries it.")

    def is_closed(self) -> bool:
        """Whether everyone may ask."""
        return self.open_until is None

    def blocks(self, now: datetime) -> bool:
        """Whether nobody may ask now. Neither closed nor blocking is half-open: whoever claims the trial may."""
        return self.open_until is not None and now < self.open_until


def open_until(failures: int, now: datetime) -> datetime | None:
    """The end of the pause after so many failures in a row: twice as long after each; None: not yet a pause."""
    if failures < FAILURES_TO_OPEN:
        return None
    times: int = 2 ** min(failures - FAILURES_TO_OPEN, 10)
    return now + min(FIRST_PAUSE * times, LONGEST_PAUSE)
