"""A container's main process killed by `kill -9`, met in three ways: by the watcher, which hears the engine's event; by the engine's own
restart policy; and by a restarter that looks at the health status every 5 s.

All three have the same container, with the same health check. It serves again when a new process answers at its port. It is in the
machine's own network: with a bridge, asking in vain while it starts makes it unreachable for another second, whoever has started it.
"""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment

from blocks.inventory import save_inventory
from blocks.records import load_records_url
from blocks.schema import Inventory, Kind, Resource, Rules, Thresholds
from compose.description import HOST, LabError, free_ports
from compose.stack import Stack
from flows.watch import LOOK_SECONDS
from tasks.clients.polling import poll
from tasks.core.models import FixRecord, Verdict
from tasks.records.repository import Records
from tests.tasks.engine import container, docker, inspected, why_there_is_no_engine

T = TypeVar("T")
CYCLE_SECONDS = 5.0
GIVE_UP_SECONDS = 30.0
WATCHER_SECONDS = 90.0
ANSWER_SECONDS = 0.1
MODULE = "-MIO::Socket::INET"
SERVE = r"""
my $door = IO::Socket::INET->new(LocalAddr => shift, Listen => 16, ReuseAddr => 1) or die "$@";
my $own = rand;
while (my $caller = $door->accept) { print $caller "$own\n"; close $caller }
"""
"""Perl is in Debian's slim image. Each process answers with a number of its own, so that a new one can be told from the old."""
CHECK = f"perl {MODULE} -e 'exit !IO::Socket::INET->new(shift)->getline'"
RULES = Rules(settle_seconds=2, cooldown_seconds=0, max_fixes_per_hour=1000, max_fixes_per_hour_overall=1000)
"""As in the lab."""


@dataclass
class Trials:
    """Seconds from the kill, one figure a trial; None where it was not reached in time."""

    healthy: list[float | None] = field(default_factory=list)
    detected: list[float | None] = field(default_factory=list)
    validated: list[float | None] = field(default_factory=list)


def why_not() -> str:
    """Why this can't be measured here; empty where it can."""
    if os.geteuid() != 0:
        return "only root may kill a container's process"
    return why_there_is_no_engine()


async def containers(running: Stack, repeats: int) -> dict[str, Trials]:
    """Who brings the container back -> the trials."""
    return {
        "evenkeel, by event": await by_event(running, repeats),
        "restart policy": await by_policy(repeats),
        f"health-check restarter, {CYCLE_SECONDS:g} s": await by_restarter(repeats),
    }


@dataclass(frozen=True)
class Box:
    """A container that serves, and where."""

    name: str
    port: int

    def kill(self) -> float:
        """Kill its main process from outside, as the kernel would, and answer when; LabError where that process is not on this machine."""
        process = int(inspected(self.name)["State"]["Pid"])
        # 0, where nothing runs, would be this very process group; and an engine in a virtual machine counts processes of its own.
        if process <= 1 or not psutil.pid_exists(process) or SERVE not in psutil.Process(process).cmdline():
            raise LabError(f"{self.name}: process {process}, which its engine names, is not its process on this machine")
        killed_at = time.time()
        os.kill(process, signal.SIGKILL)
        return killed_at

    async def answer(self) -> bytes:
        """What the process that serves now calls itself; empty where none does."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, self.port)
                try:
                    return await reader.readline()
                finally:
                    writer.close()
        return b""

    async def well(self) -> bytes:
        """Wait for it to serve and for its health check to say so; what its process calls itself."""
        return await within(GIVE_UP_SECONDS, self._well, f"{self.name} to be healthy")

    async def _well(self) -> bytes | None:
        is_healthy = inspected(self.name)["State"]["Health"]["Status"] == "healthy"
        return (await self.answer() or None) if is_healthy else None

    async def served_again(self, killed_at: float, old: bytes) -> float | None:
        """Seconds from the kill until another process answers."""
        while time.time() - killed_at < GIVE_UP_SECONDS:
            if await self.answer() not in {b"", old}:
                return time.time() - killed_at
            await asyncio.sleep(0.01)
        return None


@contextmanager
def box(restart: str) -> Iterator[Box]:
    """A new container with that restart policy; gone afterwards."""
    port = free_ports(1)[0]
    address = f"{HOST}:{port}"
    health = ("--health-cmd", f"{CHECK} {address}", "--health-interval", "1s")
    with container("--network", "host", *health, "--restart", restart, command=("perl", MODULE, "-e", SERVE, address)) as name:
        yield Box(name, port)


async def by_event(running: Stack, repeats: int) -> Trials:
    """A watcher that the worker runs, with everything that a remediation has: plan, policy, tool, validation, record."""
    trials = Trials()
    with box("no") as one, running.client() as client:
        # The fourth crash within an hour would be left to a person otherwise.
        resource = Resource(name="box", kind=Kind.CONTAINER, address=one.name, thresholds=Thresholds(restarts_per_hour=1000))
        inventory = Inventory(name="bench-containers", resources=(resource,), rules=RULES)
        async with client, watched(client, inventory) as records:
            for _ in range(repeats):
                old = await one.well()
                killed_at = one.kill()
                trials.healthy.append(await one.served_again(killed_at, old))
                record = await closed(records, inventory, killed_at)
                trials.detected.append(record.opened_at.timestamp() - killed_at)
                closed_at = record.closed_at if record.verdict is Verdict.COMPLETED else None
                trials.validated.append(None if closed_at is None else closed_at.timestamp() - killed_at)
                # The look that is not over would see the next end by itself, without an event.
                await asyncio.sleep(LOOK_SECONDS + 1)
    return trials


@asynccontextmanager
async def watched(client: PrefectClient, inventory: Inventory) -> AsyncIterator[Records]:
    """The records of an inventory that a watcher is at work for."""
    await save_inventory(client, inventory)
    records = await Records.open(await load_records_url())
    key = f"{inventory.name}/events"

    async def at_work_since() -> datetime | None:
        holder = await records.current_monitor(key)
        return None if holder is None else holder[1]

    async def ended_at() -> datetime | None:
        return (await client.read_flow_run(run.id)).end_time

    try:
        run: FlowRun = await arun_deployment("watch/lab", parameters={"inventory": inventory.name}, timeout=0, as_subflow=False)
        try:
            await within(WATCHER_SECONDS, at_work_since, "the watcher to be at work")
            yield records
        finally:
            await records.take_over_monitor(key, "the benchmark", datetime.now(UTC))

            await within(GIVE_UP_SECONDS, ended_at, "the watcher to end")
    finally:
        await records.close()


async def closed(records: Records, inventory: Inventory, killed_at: float) -> FixRecord:
    """The record of the one remediation since then, when it is over."""

    async def found() -> FixRecord | None:
        history = await records.history(inventory=inventory.name, since=datetime.fromtimestamp(killed_at, UTC), limit=1)
        return next((one for one in history if one.verdict is not None), None)

    return await within(GIVE_UP_SECONDS, found, "a remediation to be over")


async def by_policy(repeats: int) -> Trials:
    """The engine starts it again after 0.1 s, and waits twice as long each time soon after: hence a new container for each trial."""
    trials = Trials()
    for _ in range(repeats):
        with box("always") as one:
            old = await one.well()
            trials.healthy.append(await one.served_again(one.kill(), old))
    return trials


async def by_restarter(repeats: int) -> Trials:
    """The kills are spread over the cycle: each trial's at a random moment of its own part of it."""
    trials = Trials()
    with box("no") as one:
        for trial in range(repeats):
            old = await one.well()
            seen_at: list[float] = []
            restarting = asyncio.create_task(restart_unhealthy(one.name, seen_at))
            try:
                await asyncio.sleep(CYCLE_SECONDS * (trial + random.random()) / repeats)
                killed_at = one.kill()
                trials.healthy.append(await one.served_again(killed_at, old))
                trials.detected.append(seen_at[0] - killed_at if seen_at else None)
            finally:
                restarting.cancel()
                await asyncio.gather(restarting, return_exceptions=True)
    return trials


async def restart_unhealthy(name: str, seen_at: list[float]) -> None:
    """Look at the health status, restart what is unhealthy, sleep, and again.

    The engine calls a container unhealthy as soon as its process has ended. Restarters that list running containers only, as many do,
    would never see it; this one does.
    """
    while True:
        if await asyncio.to_thread(docker, "inspect", "-f", "{{.State.Health.Status}}", name) == "unhealthy":
            seen_at.append(time.time())
            await asyncio.to_thread(docker, "restart", name)
        await asyncio.sleep(CYCLE_SECONDS)


async def within(seconds: float, attempt: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first answer that is not None; LabError where there is none in time."""
    answer = await poll(attempt, seconds=seconds, every_seconds=0.1)
    if answer is None:
        raise LabError(f"waited {seconds:g} s for {what}")
    return answer
