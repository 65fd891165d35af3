"""A process that wants a resource: told over stdin what to do, answers on stdout, one JSON line each.

Commands: open RECORD OWNER | begin FIX OWNER ORDINAL | abandon FIX. Each takes effect when it is sent, so that several
processes race. Ends with its stdin.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

from tasks.core.models import FixRecord, Step
from tasks.records.repository import Records

STEP = Step(tool="redis_evict_to", target="shop-cache", why="frees memory")


async def _answer(records: Records, command: str, *args: str) -> bool:
    now = datetime.now(UTC)
    if command == "open":
        return await records.open_fix(FixRecord.model_validate_json(args[0]), args[1], now)
    if command == "begin":
        return await records.begin_step(args[0], args[1], int(args[2]), STEP, now)
    if command == "abandon":
        return await records.abandon(args[0], now + timedelta(hours=1), now, f"found by {args[1]}") is not None
    raise ValueError(command)


async def _main(url: str) -> None:
    async with await Records.open(url) as records:
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await _answer(records, *json.loads(line))), flush=True)


asyncio.run(_main(sys.argv[1]))
