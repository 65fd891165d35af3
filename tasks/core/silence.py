"""For how long a sign of life has not changed. Pure: times come from the caller."""

from collections.abc import Mapping
from datetime import datetime


class Silences:
    """How long each heartbeat has been the same, by the clock of the one who listens alone.

    A heartbeat names a time of the machine that it comes from. Clocks of two machines differ, and any of them may jump, so it is never
    held against the listener's own: only whether it has changed counts.
    """

    def __init__(self) -> None:
        self._heard: dict[str, tuple[datetime, float]] = {}

    def listen(self, beats: Mapping[str, datetime], now: float) -> dict[str, float]:
        """Name -> seconds since its heartbeat was first heard as it is now; what is not named any more is forgotten.

        `now`: the listener's time in seconds, by a clock that never jumps.
        """
        known = self._heard
        self._heard = {name: known[name] if name in known and known[name][0] == beat else (beat, now) for name, beat in beats.items()}
        return {name: now - since for name, (_, since) in self._heard.items()}
