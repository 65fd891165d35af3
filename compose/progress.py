"""What a person sees while something long runs: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
_begun = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the start."""
    console.print(f"[dim]{time.monotonic() - _begun:6.1f} s[/dim]  {text}")


@contextmanager
def doing(text: str) -> Iterator[None]:
    """Show what goes on, and how long it took when it is done."""
    started = time.monotonic()
    if console.is_terminal:
        with console.status(f"{text} ..."):
            yield
    else:
        say(f"{text} ...")
        yield
    say(f"{text}: {time.monotonic() - started:.1f} s")
