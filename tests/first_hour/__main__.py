"""`make first-hour`: follow docs/getting-started.md, then the services of docs/deployment.md, from an empty Debian machine.

The commands are those of the documents as they are committed, in order, and no others; what came of each section is looked at from outside.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from compose.cli import run_until_done
from compose.description import LabError
from compose.progress import say
from tests.first_hour.document import DEPLOYMENT, GETTING_STARTED, REPOSITORY, ROOT, Section, sections_of
from tests.first_hour.looks import AS_A_SERVICE, IN_THE_FIRST_HOUR, Look, Sight
from tests.first_hour.machine import SHOWN, Machine, Terminal, empty_machine, run

REPORT = Path("build/first-hour.json")
BUNDLE = "/srv/evenkeel.bundle"
COMMAND_SECONDS = 1200.0
GIT_SECONDS = 60.0


@dataclass(frozen=True)
class Walked:
    """One section, as it went."""

    document: str
    section: str
    blocks: int
    commands_seconds: float
    """Until its commands were done."""
    looking_seconds: float
    """From then until what it promises was seen."""


async def walk(machine: Machine, terminal: Terminal, document: str, section: Section, look: Look) -> Walked:
    """Enter a section's commands, and look. LabError says what is not as the section says."""
    begun = time.monotonic()
    printed = ""
    try:
        for block in section.blocks:
            printed += await terminal.enter(block.replace(REPOSITORY, BUNDLE), COMMAND_SECONDS)
        entered = time.monotonic()
        await look(Sight(machine, terminal, printed))
    except LabError as error:
        raise LabError(f"{document}, {section.title}: {error}\nBefore, it printed:\n{printed[-SHOWN:]}") from error
    walked = Walked(document, section.title, len(section.blocks), round(entered - begun, 1), round(time.monotonic() - entered, 1))
    say(f"{section.title}: {walked.commands_seconds:.0f} s of commands, {walked.looking_seconds:.0f} s until it was seen: {look.__doc__}")
    return walked


async def first_hour(*, is_with_services: bool) -> int:
    """Follow the documents of this commit; 0 where every command and every look went well."""
    with tempfile.TemporaryDirectory(prefix="evenkeel-first-hour-") as directory:
        bundle = Path(directory) / "evenkeel.bundle"
        await run("git", "-C", str(ROOT), "bundle", "create", "--quiet", str(bundle), "HEAD", seconds=GIT_SECONDS)
        say("start an empty Debian machine ...")
        async with empty_machine() as machine, machine.terminal() as terminal:
            await machine.put(bundle, BUNDLE)
            walked = [await walk(machine, terminal, *step) for step in await _route(is_with_services=is_with_services)]
    seconds = sum(one.commands_seconds + one.looking_seconds for one in walked if one.document == GETTING_STARTED)
    REPORT.parent.mkdir(exist_ok=True)
    report = {"first_hour_minutes": round(seconds / 60, 1), "sections": [asdict(one) for one in walked]}
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"{GETTING_STARTED} took {seconds / 60:.1f} minutes; {REPORT}")
    return 0


async def _route(*, is_with_services: bool) -> list[tuple[str, Section, Look]]:
    """What is to be followed, and what to look at after it."""
    hour = [(GETTING_STARTED, section, look) for section, look in zip(await _committed(GETTING_STARTED), IN_THE_FIRST_HOUR, strict=True)]
    if not is_with_services:
        return hour
    rest = [section for section in await _committed(DEPLOYMENT) if section.title in AS_A_SERVICE]
    return hour + [(DEPLOYMENT, section, AS_A_SERVICE[section.title]) for section in rest]


async def _committed(document: str) -> list[Section]:
    """The document's sections as a clone has them."""
    return sections_of(await run("git", "-C", str(ROOT), "show", f"HEAD:{document}", seconds=GIT_SECONDS))


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.first_hour", description="Follow the documents from an empty Debian machine.")
    parser.add_argument("--without-services", action="store_true", help="stop at the end of the first hour")
    arguments = parser.parse_args()
    return run_until_done(first_hour(is_with_services=not arguments.without_services))


if __name__ == "__main__":
    sys.exit(main())
