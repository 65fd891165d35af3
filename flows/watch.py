"""Watch for events: engine events and alerts start a monitor run of just the resources concerned, beside the scheduled one."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow, get_run_logger, runtime, tags
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.alerts import load_alerts
from blocks.schema import Inventory
from flows.monitor import monitor
from flows.remediate import AutonomyChoice
from tasks.alerts import Receiver, receiving
from tasks.connecting import Live, live
from tasks.core.admission import TokenBucket
from tasks.planning import prepare_planner
from tasks.probing import probe_all
from tasks.publishing import publish_unmatched
from tasks.watching import Watching, follow_engine

LOOK_EVERY_SECONDS = 1.0
LOOK_SECONDS = 3.0
"""What an event tells of may take a moment to show."""
ALIVE_EVERY_SECONDS = 1.0
PUBLISH_EVERY_SECONDS = 10.0
BURST = 10


@flow(name="watch", flow_run_name="Watch the events of {inventory}", persist_result=False)
async def watch(
    inventory: str = "lab",
    window_seconds: float = 3600,
    looks_per_minute: float = 30,
    autonomy: AutonomyChoice = "as configured",
    pool: str = "",
) -> State[Any]:
    """Turn events into monitor runs until the next watcher takes over, or the window ends.

    Args:
        inventory: Name of the inventory. Events come from the engines of its containers, alerts at the address of its section `alerts`.
        window_seconds: Time after which the run ends by itself; longer than the schedule's interval, so that a late run leaves no gap.
        looks_per_minute: How many monitor runs it starts, ten at once at most; what is more is left to the scheduled monitor.
        autonomy: How far remediations go. It can only make more cautious what the inventory allows.
        pool: Only the resources that name this work pool; empty: those that name none.
    """
    if window_seconds <= 0 or looks_per_minute <= 0:
        raise ValueError("window_seconds and looks_per_minute: give a number above 0")
    async with live(inventory) as opened, AsyncExitStack() as stack:
        alerts = await load_alerts(inventory)
        here = of_pool(opened.inventory, pool)
        engines = sorted({one.container.engine for one in here.resources if one.container is not None})
        if alerts is None and not engines:
            return Completed(message="nothing to watch: the inventory has no container and no section `alerts`")
        watching = Watching(partial(_look, inventory, autonomy), TokenBucket(BURST, looks_per_minute / 60))
        run_id, key = str(runtime.flow_run.id), f"{inventory}/events/{pool}".removesuffix("/")
        await opened.records.take_over_monitor(key, run_id, datetime.now(UTC))
        following = [asyncio.create_task(follow_engine(engine, here, watching)) for engine in engines]
        receiver = None
        try:
            if alerts is not None:
                opened.keep_secret(alerts.token.get_secret_value())
                receiver = Receiver(here, alerts.token, watching)
                url = await stack.enter_async_context(receiving(receiver, alerts.listen))
                get_run_logger().info("alerts are received at %s", url)
            await _warm_up(opened, here)
            why = await _until_relieved(opened, key, run_id, window_seconds, following, receiver)
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await stack.aclose()
            await watching.drained()
    heard = "" if receiver is None else f"{receiver.alerts} alert(s), {receiver.unmatched} of them about no known resource; "
    turned_away = f"{watching.duplicates} duplicate(s), {watching.dropped} turned away as too many"
    return Completed(message=f"{heard}{watching.looks} look(s), {turned_away}; {why}")


async def _look(inventory: str, autonomy: AutonomyChoice, resources: list[str], cause: str) -> None:
    with tags("evenkeel", "event"):
        await monitor(inventory, LOOK_EVERY_SECONDS, LOOK_SECONDS, autonomy, resources, cause, return_state=True)


def of_pool(inventory: Inventory, pool: str) -> Inventory:
    """What is watched from here: an address of another network may be anybody's."""
    return inventory.model_copy(update={"resources": tuple(one for one in inventory.resources if (one.pool or "") == pool)})


async def _warm_up(opened: Live, here: Inventory) -> None:
    """Connect to everything and load what planning needs, so that the first event need not wait for it."""
    await asyncio.gather(prepare_planner(opened), probe_all(opened, here.resources))


async def _until_relieved(
    opened: Live, key: str, run_id: str, window_seconds: float, following: list[asyncio.Task[None]], receiver: Receiver | None
) -> str:
    deadline = time.monotonic() + window_seconds
    published, publish_at = 0, time.monotonic()
    while True:
        if following:
            done, _ = await asyncio.wait(following, timeout=ALIVE_EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        else:
            await asyncio.sleep(ALIVE_EVERY_SECONDS)
        if not await opened.records.monitor_swept(key, run_id, datetime.now(UTC)):
            return "the next run has taken over"
        over = time.monotonic() >= deadline
        if receiver is not None and receiver.unmatched != published and (over or time.monotonic() >= publish_at):
            published, publish_at = receiver.unmatched, time.monotonic() + PUBLISH_EVERY_SECONDS
            await publish_unmatched(opened.inventory.name, receiver.unmatched_labels)
        if over:
            return f"the window of {window_seconds:g} s is over"
