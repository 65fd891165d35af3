"""How the commands run: Ctrl-C and SIGTERM end them in order, errors that a person can mend come without a traceback."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from compose.description import LabError
from compose.progress import console

INTERRUPTED = 130


def run_until_done(work: Coroutine[Any, Any, int]) -> int:
    """Run to the end and answer the exit code; a first Ctrl-C or SIGTERM cancels the work, which then cleans up.

    Whatever signals come meanwhile are left alone: they would end the cleaning up, and leave behind what was started.
    """

    async def supervised() -> int:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if not task.cancelling():
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            console.print("stopped; everything that was started is ended")
            return INTERRUPTED
        except LabError as error:
            console.print(f"[red]{error}[/red]")
            return 2

    return asyncio.run(supervised())
