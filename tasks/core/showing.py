"""When a monitor keeps the status of what it watches in the records, and when it shows all of it as a table. Times are given.

A table is one artifact, whole each time: of a thousand resources it takes 0.2 MB. Shown each minute it would be most of what Prefect's
database grows by, so the larger the table the more seldom it is shown where nothing changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tasks.core.models import Health

Seen = Mapping[str, tuple[Health, str]]
"""Resource -> its health, and what is done about it."""
KEEP_EVERY_SECONDS = 60.0
SHOW_SECONDS_A_RESOURCE = 0.6
"""A table for each hundred seconds of two hundred resources: some 20 MB a day, however many there are."""
CHANGE_SECONDS_A_RESOURCE = 0.01
"""What changes is shown at once, but not more often than this."""


@dataclass
class Board:
    """What one monitor run has kept and shown, and what it knows of the run before."""

    resources: int
    """How many the table has, those of other monitors among them."""
    kept: Seen = field(default_factory=dict)
    kept_at: float = float("-inf")
    shown: Seen = field(default_factory=dict)
    shown_at: float = float("-inf")
    slot: int | None = None
    """Number of the interval of the clock, one for each table, in which there was one last."""

    def swept_before(self, moment: datetime | None) -> None:
        """Go on from the last sweep of the run before: in its interval there was a table. None: nobody has swept."""
        self.slot = None if moment is None else self._slot(moment)

    def left(self, health: Mapping[str, Health]) -> None:
        """Learn what others have kept of these resources, and shown."""
        known: Seen = {name: (state, "") for name, state in health.items()}
        self.kept, self.shown = {**self.kept, **known}, {**self.shown, **known}

    def due(self, seen: Seen, *, seconds: float, moment: datetime, leads: bool) -> Literal["nothing", "keep", "show"]:
        """What to do about what was just seen; whoever asks does it.

        Args:
            seen: What this monitor watches; others may watch the rest.
            seconds: A monotonic time.
            moment: The same by the clock, which all monitors share.
            leads: Whether it is this one of several monitors that shows the table where nothing changes.
        """
        slot = self._slot(moment)
        is_new = not seen.items() <= self.shown.items() and seconds - self.shown_at >= CHANGE_SECONDS_A_RESOURCE * self.resources
        if is_new or self.slot is None or (leads and slot != self.slot):
            self.kept, self.kept_at = seen, seconds
            self.shown, self.shown_at, self.slot = seen, seconds, slot
            return "show"
        if seen.items() <= self.kept.items() and seconds - self.kept_at < KEEP_EVERY_SECONDS:
            return "nothing"
        self.kept, self.kept_at = seen, seconds
        return "keep"

    def _slot(self, moment: datetime) -> int:
        return int(moment.timestamp() // max(KEEP_EVERY_SECONDS, SHOW_SECONDS_A_RESOURCE * self.resources))
