"""The output of this process, whose reader may be gone before it: a worker that was killed reads its runs' lines no more."""

import logging
import os
from functools import partial

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console


def outlive_reader() -> None:
    """Let this process go on where nobody reads its output any more.

    Rich, by which Prefect writes its log to the console, ends the process at the first line that nobody takes: in the middle of a step.
    """
    loggers = [logging.getLogger(), *(one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if isinstance(handler, PrefectConsoleHandler):
            handler.console.on_broken_pipe = partial(_fall_silent, handler.console)  # type: ignore[method-assign]


def _fall_silent(console: Console) -> None:
    """Write no more; what others write to the same output is thrown away, as its end would be an error once more."""
    console.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, console.file.fileno())
    os.close(nowhere)
