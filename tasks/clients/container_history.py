"""What the events of the last hour say of one container. Pure."""

from collections import deque
from collections.abc import Iterable

from tasks.clients.container_streams import ContainerEvent

HOUR_SECONDS = 3600.0
MOST_EVENTS = 500
ASKED_SECONDS = 60.0
ENDING_SIGNALS = {"2", "3", "9", "15"}
"""With others a process is told something: to read its configuration again, say."""


class History:
    """The events of one container, the latest last."""

    def __init__(self, events: Iterable[ContainerEvent] = ()) -> None:
        self._events: deque[ContainerEvent] = deque(events, maxlen=MOST_EVENTS)

    def add(self, event: ContainerEvent) -> None:
        """Keep an event."""
        self._events.append(event)

    def clear(self) -> None:
        """Forget all."""
        self._events.clear()

    def within_an_hour(self, now: float) -> "History":
        """What happened in the hour before `now`, in epoch seconds."""
        return History(event for event in self._events if event.at > now - HOUR_SECONDS)

    @property
    def oom_kills(self) -> int:
        """Kills for want of memory since the limits were last changed."""
        count = 0
        for event in self._events:
            if event.action == "update":
                count = 0
            count += event.action == "oom"
        return count

    @property
    def restarts(self) -> int:
        """How often it came up again after its process had ended without having been asked to."""
        starts = [event.at for event in self._events if event.action == "start"]
        return sum(any(at > crash.at for at in starts) for crash in self._crashes())

    @property
    def exit_codes(self) -> list[int]:
        """Of those, the latest last; 137 is SIGKILL."""
        return [int(event.attributes.get("exitCode", "0")) for event in self._crashes()]

    def _crashes(self) -> list[ContainerEvent]:
        found = []
        asked_at: float | None = None
        for event in self._events:
            if event.action == "kill" and event.attributes.get("signal") in ENDING_SIGNALS:
                asked_at = event.at
            elif event.action == "start":
                asked_at = None
            elif event.action == "die" and (asked_at is None or event.at - asked_at > ASKED_SECONDS):
                found.append(event)
        return found
