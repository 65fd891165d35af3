"""A monitor that stops is noticed by Prefect's server alone, which waits for the next sweep in vain."""

from collections.abc import AsyncIterator

import pytest
from prefect.client.orchestration import get_client
from pydantic import SecretStr

from blocks.notifications import save_notifications
from blocks.notify import Notify
from flows.monitor import monitor
from tasks import pulse
from tasks.connecting import Live
from tests.blocks.test_notifications import Receiver, receiver

__all__ = ["receiver"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
SILENCE_SECONDS = 10.0
"""The least that Prefect knows."""
NOTICED_SECONDS = 60.0


@pytest.fixture
async def told(opened: Live, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """The lab's section `notify` with that patience, and a monitor that tells of every sweep."""
    monkeypatch.setattr(pulse, "TELL_EVERY_SECONDS", 0.5)
    notify = Notify(webhook=SecretStr(receiver.url)).model_copy(update={"silence_seconds": SILENCE_SECONDS})
    async with get_client() as client:
        await save_notifications(client, "lab", notify)
        yield receiver
        await save_notifications(client, "lab", None)


async def test_people_are_told_once_when_nobody_sweeps_any_more(told: Receiver) -> None:
    await monitor("lab", sweep_every_seconds=1, window_seconds=SILENCE_SECONDS + 3, return_state=True)
    # More than the silence has passed, and there was none.
    assert told.messages.empty()
    message = await told.next(NOTICED_SECONDS)
    assert message is not None
    assert (message["situation"], message["monitor"]) == ("Monitoring has stopped", "lab")
    assert message["text"].startswith("Nothing watches lab: no sweep for 10 s; the last one was at 20")
    assert message["last_sweep"] in message["text"]
    assert message["url"].endswith("/v2/deployments")
    assert await told.next(SILENCE_SECONDS + 3) is None, "once, and not every ten seconds"
