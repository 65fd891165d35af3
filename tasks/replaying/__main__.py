"""Plan past incidents again: `python -m tasks.replaying incidents.json --planner runbook`. No server is touched."""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from tasks.core.errors import EvenkeelError
from tasks.core.replay import agreement
from tasks.core.replay_rendering import agreement_text, comparison_row, report
from tasks.replaying.again import PlannerChoice
from tasks.replaying.sources import Asked, all_again, opened


def _rule(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no rule; write NAME=VALUE, such as autonomy=approve")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.replaying", description="Plan past incidents again; nothing is executed.")
    parser.add_argument("file", help="what `python -m tasks.records export` wrote")
    parser.add_argument("--planner", choices=get_args(PlannerChoice), default="runbook", help="default: runbook")
    parser.add_argument("--inventory", default="lab", help="for gemini: whose registered section `gemini` is used (default: lab)")
    parser.add_argument("--model", default="", help="for gemini: another model than the section's")
    parser.add_argument("--prompt", type=Path, metavar="FILE", help="for gemini: instructions in place of the project's own")
    parser.add_argument(
        "--rule", type=_rule, action="append", default=[], metavar="NAME=VALUE", help="a rule that is otherwise; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


async def run(options: argparse.Namespace, console: Console) -> None:
    """Do what the command line says. EvenkeelError if it can't be done."""
    asked = Asked(
        inventory=options.inventory,
        planner=options.planner,
        model=options.model,
        file=options.file,
        rules=dict(options.rule),
        prompt=options.prompt.read_text(encoding="utf-8") if options.prompt else "",
    )
    async with opened(asked, logging.getLogger("evenkeel.replaying")) as replay:
        comparisons = await all_again(replay)
    if options.json:
        print(json.dumps(report(comparisons), indent=2))
        return
    rows = [comparison_row(one) for one in comparisons]
    table = Table(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    if rows:
        console.print(table)
    console.print(_plain(agreement_text(agreement(comparisons)).replace("**", "")))


def _plain(value: object) -> str:
    """Text of a server can't steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with a sentence on stderr for what can't be done."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(run(options, Console(markup=False, emoji=False, highlight=False)))
    except (EvenkeelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
