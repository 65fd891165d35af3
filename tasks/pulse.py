"""A monitor's sign of life: an event after a sweep, a few times a minute. Its absence is what an automation waits for."""

import time

from prefect.events import emit_event

from blocks.pulse import SWEPT, monitor_id

TELL_EVERY_SECONDS = 20.0


class Pulse:
    """The signs of life of one monitor run."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._told_at = float("-inf")

    def swept(self) -> None:
        """Tell it, where it was not told just now. It costs no waiting: Prefect sends events by a thread of its own."""
        now = time.monotonic()
        if now - self._told_at < TELL_EVERY_SECONDS:
            return
        self._told_at = now
        emit_event(SWEPT, {"prefect.resource.id": monitor_id(self._key), "prefect.resource.name": self._key})
