"""A process that wants a resource: told over stdin what to do, answers on stdout, one JSON line each.

Commands: open RECORD OWNER | begin FIX OWNER ORDINAL | abandon FIX. Each takes effect when it is sent, so that several
processes race. Ends with its stdin.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime

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
        return await _abandon(records, args[0], f"found by {args[1]}")
    raise ValueError(command)


async def _abandon(records: Records, fix_id: str, message: str) -> bool:
    """Whether it was this process that closed the fix; an owner that is heard again meanwhile is not believed."""
    while found := [one for one in await records.open_fixes("lab") if one.fix_id == fix_id]:
        record = await records.get(fix_id)
        if record is not None and await records.abandon(record, found[0].heartbeat_at, datetime.now(UTC), message) is not None:
            return True
    return False


async def _main(url: str) -> None:
    async with await Records.open(url) as records:
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await _answer(records, *json.loads(line))), flush=True)


asyncio.run(_main(sys.argv[1]))
