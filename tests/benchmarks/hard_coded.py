"""The three faults met by hard-coded checks and fixes: the floor that no general system gets below.

Also the check and fix scripts that monit runs: `python -m tests.benchmarks.hard_coded check|fix SCENARIO LAB_DIRECTORY`.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
from redis.asyncio import Redis

from compose.description import LabDescription, load
from tasks.clients.runtime import SupervisedProcess
from tasks.scenarios.nginx import SHARE, SLOTS_PER_REQUEST
from tasks.scenarios.postgres import CONNECTIONS
from tasks.scenarios.stage import ShopLoads

CYCLE_SECONDS = 2.0
GIVE_UP_SECONDS = 30.0
WORKER_CONNECTIONS = 256
Act = Callable[[LabDescription], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """How a fault is injected, seen, mended and reset, each in the most direct way."""

    load: str
    parameters: dict[str, float]
    is_breached: Callable[[LabDescription], Awaitable[bool]]
    fix: Act
    reset: Act


def _redis(lab: LabDescription) -> Redis:
    return Redis(host=lab.cache.host, port=lab.cache.port, username=lab.cache.username, password=lab.cache.password)


async def _memory_is_high(lab: LabDescription) -> bool:
    async with _redis(lab) as redis:
        memory = await redis.info("memory")
    return bool(memory["used_memory"] >= 0.95 * memory["maxmemory"])


def _set_memory(mebibytes: int) -> Act:
    async def set_memory(lab: LabDescription) -> None:
        async with _redis(lab) as redis:
            await redis.config_set("maxmemory", mebibytes * 2**20)

    return set_memory


async def _connections_are_high(lab: LabDescription) -> bool:
    async with await psycopg.AsyncConnection.connect(lab.database.conninfo("monitor")) as connection:
        query = (
            "SELECT count(*) >= 0.8 * current_setting('max_connections')::int FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        row = await (await connection.execute(query)).fetchone()
    return bool(row and row[0])


async def _terminate_reports(lab: LabDescription) -> None:
    async with await psycopg.AsyncConnection.connect(lab.database.conninfo("monitor"), autocommit=True) as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shop-reports'")


async def _nothing(_: LabDescription) -> None:
    return


async def _nginx_is_full(lab: LabDescription) -> bool:
    status = await SupervisedProcess(str(lab.control), "web").status()
    limit = int(re.findall(r"worker_connections\s+(\d+)", lab.web.config_path.read_text(encoding="utf-8"))[0])
    used = 0
    for worker in psutil.Process(status.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "shutting down" not in " ".join(worker.cmdline()):
                used += sum(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections("tcp"))
    return used >= 0.8 * limit


def _set_worker_connections(number: int) -> Act:
    async def set_worker_connections(lab: LabDescription) -> None:
        text = lab.web.config_path.read_text(encoding="utf-8")
        lab.web.config_path.write_text(re.sub(r"(worker_connections\s+)\d+", rf"\g<1>{number}", text), encoding="utf-8")
        status = await SupervisedProcess(str(lab.control), "web").status()
        if status.pid is not None:
            os.kill(status.pid, signal.SIGHUP)

    return set_worker_connections


async def _reset_worker_connections(lab: LabDescription) -> None:
    """Back to the limit; waits for the old workers, whose connections would not count in the next trial."""
    await _set_worker_connections(WORKER_CONNECTIONS)(lab)
    status = await SupervisedProcess(str(lab.control), "web").status()
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        titles = [" ".join(worker.cmdline()) for worker in psutil.Process(status.pid).children()]
        if titles and not any("shutting down" in title for title in titles):
            return
    raise TimeoutError(f"nginx: old workers are still there after {GIVE_UP_SECONDS:g} s")


FAULTS = {
    "redis_memory_pressure": Fault("cache/fill", {"percent": 96}, _memory_is_high, _set_memory(96), _set_memory(64)),
    "postgres_connection_overload": Fault(
        "database/blocking", {"connections": CONNECTIONS, "seconds": 3600}, _connections_are_high, _terminate_reports, _nothing
    ),
    "nginx_connection_overload": Fault(
        "nginx/hold",
        {"connections": round(WORKER_CONNECTIONS * SHARE / SLOTS_PER_REQUEST) + 1, "seconds": 3600},
        _nginx_is_full,
        _set_worker_connections(2 * WORKER_CONNECTIONS),
        _reset_worker_connections,
    ),
}


async def until_healed(lab: LabDescription, name: str) -> float | None:
    """Inject the fault while somebody else watches; seconds from the start of the injection to the end of the breach, or None."""
    fault = FAULTS[name]
    async with httpx.AsyncClient(base_url=lab.app.url, trust_env=False) as shop:
        loads = ShopLoads(shop)
        started = time.monotonic()
        await loads.start(fault.load, **fault.parameters)
        healed: float | None = None
        while time.monotonic() - started < GIVE_UP_SECONDS:
            if not await fault.is_breached(lab):
                healed = time.monotonic() - started
                break
            await asyncio.sleep(0.05)
        await loads.stop(fault.load)
    await fault.reset(lab)
    return healed


async def floor(lab: LabDescription, name: str) -> float | None:
    """Seconds to healthy with a two-second check and the right fix, the injection at a random moment of the cycle."""
    fault = FAULTS[name]

    async def watch() -> None:
        while True:
            if await fault.is_breached(lab):
                await fault.fix(lab)
            await asyncio.sleep(CYCLE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.sleep(random.uniform(0.1, CYCLE_SECONDS))
        return await until_healed(lab, name)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _script(verb: str, name: str, directory: str) -> int:
    lab = load(Path(directory))
    if verb == "check":
        return int(await FAULTS[name].is_breached(lab))
    await FAULTS[name].fix(lab)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_script(*sys.argv[1:4])))
