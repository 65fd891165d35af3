"""A monitor that stops is noticed by Prefect's server alone, which waits for the next sweep in vain."""

from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from blocks.inventory_file import parse_inventory
from blocks.register import register
from flows.monitor import monitor
from tasks import pulse
from tests.blocks.test_notifications import QUIET_SECONDS, Receiver, clean_server, receiver

__all__ = ["clean_server", "receiver"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("prefect_server", "clean_server"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SILENCE_SECONDS = 10.0
"""The least that Prefect knows."""
NOTICED_SECONDS = 90.0


class Healthy(BaseHTTPRequestHandler):
    """Answers, and that is all."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
async def watched(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """An inventory of one server that is well, whose people are impatient, and a monitor that tells of every sweep."""
    monkeypatch.setattr(pulse, "TELL_EVERY_SECONDS", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    text = f"""
name: quiet
resources: [{{name: api, kind: http, address: 'http://127.0.0.1:{server.server_port}/'}}]
records: {{url: 'sqlite:///{tmp_path}/records.db'}}
notify: {{webhook: '${{HOOK}}'}}
"""
    registration = parse_inventory(text, {"HOOK": receiver.url})
    assert registration.notify is not None
    impatient = registration.notify.model_copy(update={"silence_seconds": SILENCE_SECONDS})
    await register(registration.model_copy(update={"notify": impatient}))
    yield "quiet"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_people_are_told_once_when_nobody_sweeps_any_more(watched: str, receiver: Receiver) -> None:
    await monitor(watched, sweep_every_seconds=1, window_seconds=SILENCE_SECONDS + 2, return_state=True)
    # Longer than the silence may be, and there was none.
    assert receiver.messages.empty()
    message = await receiver.next(NOTICED_SECONDS)
    assert message is not None
    assert (message["situation"], message["monitor"]) == ("Monitoring has stopped", "quiet")
    assert message["text"].startswith("Nothing watches quiet: no sweep for 10 s; the last one was at 20")
    assert message["last_sweep"] in message["text"]
    assert message["url"].endswith("/v2/deployments")
    assert await receiver.next(QUIET_SECONDS) is None
