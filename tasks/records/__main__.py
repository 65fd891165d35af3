"""Query the records: `python -m tasks.records list`, `show ID`, `export --all`, `delete --older-than 30d`, `size`."""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from blocks.records_url import DEFAULT_PATH, records_url
from tasks.core.errors import EvenkeelError
from tasks.core.models import FixRecord, Verdict
from tasks.core.rendering import history_row, usage_text, validation_rows
from tasks.core.replay import ShadowAnswer
from tasks.core.replay_rendering import shadow_text
from tasks.records.archive import archive_of, secrets_of, write_private
from tasks.records.fixes import HISTORY_LIMIT
from tasks.records.repository import Records
from tasks.records.rows import JournalEntry

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class NotFound(EvenkeelError):
    """There is nothing to show."""


def duration(text: str) -> timedelta:
    """A time span such as 45m, 12h, 30d or 2w."""
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time span; write a number and m, h, d or w, such as 30d")
    return int(found[1]) * UNITS[found[2]]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; write a number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    place = f"sqlite:///path or postgresql://user@host:port/database; default: {DEFAULT_PATH} (a password is better kept in PGPASSWORD)"
    common.add_argument("--url", default=argparse.SUPPRESS, help=place)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    parser = argparse.ArgumentParser(prog="python -m tasks.records", description="Query the records of every fix.", parents=[common])
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="fixes, newest first", parents=[common])
    listing.add_argument("--inventory")
    listing.add_argument("--resource")
    listing.add_argument("--verdict", choices=[verdict.value for verdict in Verdict])
    listing.add_argument("--since", type=duration, metavar="30d", help="only those opened in that time")
    listing.add_argument("--limit", type=_count, default=HISTORY_LIMIT, help=f"at most so many (default: {HISTORY_LIMIT})")
    show = commands.add_parser("show", help="one fix, with the journal of its steps", parents=[common])
    show.add_argument("id")
    export = commands.add_parser("export", help="fixes with what their plans were made from, as JSON without secrets", parents=[common])
    chosen = export.add_mutually_exclusive_group(required=True)
    chosen.add_argument("ids", nargs="*", default=[], metavar="ID")
    chosen.add_argument("--all", action="store_true", help="every fix")
    export.add_argument("--to", type=Path, metavar="FILE", help="a new file that only its owner can read; default: standard output")
    export.add_argument("--env-file", type=Path, metavar="FILE", help="lines of NAME=value whose values are masked as well")
    deletion = commands.add_parser("delete", help="delete closed fixes", parents=[common])
    which = deletion.add_mutually_exclusive_group(required=True)
    which.add_argument("--older-than", type=duration, metavar="30d", help="closed longer ago than this")
    which.add_argument("--ids", nargs="+", metavar="ID")
    commands.add_parser("size", help="rows and KiB of each table, the largest first", parents=[common])
    return parser


async def run(options: argparse.Namespace, console: Console) -> None:
    """Do what the command line says. EvenkeelError if the records can't be opened, or hold no such fix."""
    as_json, now = "json" in options, datetime.now(UTC)
    async with await Records.open(_existing(getattr(options, "url", None))) as records:
        if options.command == "list":
            since = None if options.since is None else now - options.since
            verdict = None if options.verdict is None else Verdict(options.verdict)
            found = await records.history(options.resource, options.inventory, verdict, options.limit, since)
            if as_json:
                _print_json([record.model_dump(mode="json") for record in found])
            else:
                _print_table(console, [history_row(record) for record in found], f"{len(found)} fix(es), newest first")
        elif options.command == "show":
            record = await records.get(options.id)
            if record is None:
                raise NotFound(f"no fix {options.id!r}; `list` shows which there are")
            journal, shadows = await records.journal(options.id), await records.shadows(options.id)
            if as_json:
                beside = {str(attempt): shadow.model_dump(mode="json") for attempt, shadow in shadows.items()}
                steps = [entry.model_dump(mode="json") for entry in journal]
                _print_json(record.model_dump(mode="json") | {"journal": steps, "shadows": beside})
            else:
                _show(console, record, journal, shadows)
        elif options.command == "export":
            await _export(records, options)
        elif options.command == "size":
            sizes = [one.model_dump(mode="json") for one in await records.sizes()]
            if as_json:
                _print_json(sizes)
            else:
                _print_table(console, [_size_row(one) for one in sizes], "tables with their indexes")
        else:
            older_than = None if options.older_than is None else now - options.older_than
            deleted = await records.delete(older_than=older_than, ids=options.ids)
            if as_json:
                _print_json({"deleted": deleted})
            else:
                console.print(f"{deleted} fix(es) deleted")


def _size_row(size: Mapping[str, Any]) -> dict[str, Any]:
    kibibytes = size["kibibytes"]
    return {"table": size["table"], "rows": size["rows"], "KiB": "not told" if kibibytes is None else f"{kibibytes:,.0f}"}


async def _export(records: Records, options: argparse.Namespace) -> None:
    secrets = [] if options.env_file is None else secrets_of(options.env_file)
    found = await records.saved_incidents(None if options.all else options.ids)
    missing = set(options.ids) - {saved.fix.id for saved in found}
    if missing:
        raise NotFound(f"no fix {min(missing)!r}; `list` shows which there are")
    text = archive_of(found, secrets).model_dump_json(indent=1)
    if options.to is None:
        print(text)
        return
    write_private(options.to, text)
    print(f"{len(found)} fix(es) written to {options.to}", file=sys.stderr)


def _existing(given: str | None) -> str | None:
    """The URL; a question never creates the file that it asks about."""
    try:
        url = records_url(given)
    except ValueError as error:
        raise NotFound(f"--url: {error}") from None
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise NotFound(f"no records at {url.database}; name their place with --url")
    return given


def _show(console: Console, record: FixRecord, journal: Sequence[JournalEntry], shadows: Mapping[int, ShadowAnswer]) -> None:
    for name, value in history_row(record).items():
        console.print(f"{name:>14}  {_plain(value)}")
    console.print(f"{'message':>14}  {_plain(record.message)}")
    for position, attempt in enumerate(record.attempts, start=1):
        plan = attempt.plan
        console.print(f"{f'plan {position}':>14}  {plan.planner}: {plan.decision}: {_plain(plan.diagnosis)} {_plain(plan.reasoning)}")
        for said in filter(None, (usage_text(plan.usage), *plan.notes)):
            console.print(f"{'':>14}  {_plain(said)}")
        if position in shadows:
            console.print(f"{'in the shadow':>14}  {_plain(shadow_text(shadows[position]))}")
    _print_table(console, validation_rows(record), "steps and validation")
    interrupted = [{"step": entry.step.tool, "begun": entry.begun_at.isoformat()} for entry in journal if entry.outcome is None]
    if interrupted:
        _print_table(console, interrupted, "interrupted steps: each may have changed the server, or not")


def _print_table(console: Console, rows: Iterable[Mapping[str, Any]], title: str) -> None:
    rows = list(rows)
    table = Table(*(rows[0] if rows else ()), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    console.print(table if rows else f"{title}: none")


def _plain(value: object) -> str:
    """Text of a server can't steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 2 with a sentence on stderr for what can't be done."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(run(options, Console(markup=False, emoji=False, highlight=False)))
    except EvenkeelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
