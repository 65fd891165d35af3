"""Prefect's client of the event stream, of which a process has one: it must not go on telling a server that is gone."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.events.worker import EventsWorker

DRAIN_SECONDS = 10.0
_told: str | None = None


@contextmanager
def events_go_to(api_url: str) -> Iterator[None]:
    """Let events of this process go to that server; what told another one before is ended."""
    global _told
    if _told not in {None, api_url}:
        EventsWorker.drain_all(timeout=DRAIN_SECONDS, at_exit=False)
    _told = api_url
    yield
