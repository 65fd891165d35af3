"""The trials as a person reads them."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

SHOWN = {
    "scenario": "scenario",
    "outcome": "ended as",
    "expected": "expected",
    "detected_seconds": "detected after",
    "healthy_seconds": "healthy after",
    "requests_failed": "requests failed",
    "data_unharmed": "data unharmed",
    "tools": "tools",
}


def table_of(lab: str, rows: Sequence[dict[str, Any]]) -> Table:
    """A row a trial: red where something went wrong, yellow where a person was called although it could have been healed."""
    table = Table(title=f"Lab of {lab}; seconds count from the start of the injection")
    for title in SHOWN.values():
        table.add_column(title, overflow="fold")
    for row in rows:
        style = "red" if row["problems"] else "yellow" if not row["as_expected"] else None
        table.add_row(*(cell(row.get(name)) for name in SHOWN), style=style)
    return table


def summary(lab: str, rows: Sequence[dict[str, Any]]) -> str:
    """One line of figures."""
    healed = [row["healthy_seconds"] for row in rows if row.get("healthy_seconds") is not None and row["outcome"] == "healed"]
    expected = sum(row["as_expected"] for row in rows)
    called = sum(row["outcome"] == "escalated" and not row["as_expected"] for row in rows)
    wrong = sum(bool(row["problems"]) for row in rows)
    again = [str(row["scenario"]) for row in rows if row.get("inconclusive_before")]
    repeated = f"; tried twice, as the fault did not come about at first: {', '.join(again)}" if again else ""
    middle = f"; healed ones healthy after {median(healed):.2f} s (median of {len(healed)})" if healed else ""
    return f"{lab}: {len(rows)} trials: {expected} as expected, {called} more with a person called, {wrong} wrong{middle}{repeated}"


def cell(value: object) -> str:
    """A value of a row as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return f"{value:.2f} s" if isinstance(value, float) else "" if value is None else str(value)
