"""What was measured: a table in Markdown, a plot of how cost grows, and the goals that were met and missed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
SWEEP_GOAL_SECONDS = 10.0
HEALTHY_GOAL_SECONDS = 15.0
GROWTH_GOAL_MIB = 100.0
COLORS = {"PostgreSQL": "#1b7f8c", "SQLite": "#e07a2f"}
MARKS = {1: "o", 2: "s", 4: "^"}
INK = "#22313a"


def goals(report: Row) -> list[tuple[str, bool]]:
    """Each goal that was measured, with its figure, and whether it is met."""
    return [*_sweep_goals(report["sweeps"]), *_incident_goals(report["incidents"]), *_growth_goals(report["growth"])]


def _sweep_goals(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    for row in rows:
        if (row["database"], row["resources"], row["monitors"]) == ("PostgreSQL", 10_000, 4):
            told = f"10,000 resources swept by 4 monitors in {row['most_seconds']:.2f} s at most, median {row['seconds']:.2f} s"
            yield f"{told} (n={row['n']}, goal: under {SWEEP_GOAL_SECONDS:g} s)", row["most_seconds"] < SWEEP_GOAL_SECONDS


def _incident_goals(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    for row in rows:
        if (row["database"], row["incidents"]) == ("PostgreSQL", 10):
            seconds = row["healthy_seconds"]["most"]
            yield (
                f"10 incidents at once all healthy after {seconds:.2f} s (goal: under {HEALTHY_GOAL_SECONDS:g} s)",
                (seconds < HEALTHY_GOAL_SECONDS),
            )


def _growth_goals(rows: Sequence[Row]) -> Iterator[tuple[str, bool]]:
    for row in rows:
        grown = sum(row["mib_a_day"].values())
        told = f"{row['database']}: 1,000 healthy resources grow both databases by {grown:.0f} MiB a day"
        yield f"{told} ({row['minutes']:g} minutes extrapolated, goal: under {GROWTH_GOAL_MIB:g} MiB)", grown < GROWTH_GOAL_MIB


def markdown(report: Row) -> str:
    """Tables of everything."""
    lines = ["# Scale", "", f"`{report['command']}` on {report['machine']}", ""]
    if report["sweeps"]:
        lines += ["## Sweeps of a healthy inventory", "", *_sweeps(report["sweeps"]), ""]
    if report["growth"]:
        lines += ["## Growth by a scheduled deployment, a run each minute and a sweep each 15 s", "", *_growth(report["growth"]), ""]
    if report["incidents"]:
        lines += ["## Incidents at once", "", *_incidents(report["incidents"]), ""]
    lines += ["## Goals", "", *(f"- {'met' if is_met else '**missed**'}: {told}" for told, is_met in goals(report)), ""]
    if report["problems"]:
        lines += ["## Problems", "", *(f"- {problem}" for problem in report["problems"]), ""]
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _sweeps(rows: Sequence[Row]) -> Iterator[str]:
    titles = (
        *("database", "resources", "monitors", "seconds a sweep (n, most)", "first sweep, s", "CPU seconds a sweep: monitors"),
        *("Prefect's server", "PostgreSQL", "memory of a monitor, MiB (peak)", "growth, MiB an hour: Prefect", "records"),
    )
    cells = []
    for row in rows:
        cpu, grown = row["cpu_seconds_a_sweep"], row["grown_mib_an_hour"]
        own = f"{row['seconds']:.2f} (n={row['n']}, {row['most_seconds']:.2f})"
        known = (row["database"], f"{row['resources']:,}", row["monitors"], own, f"{row['first_seconds']:.2f}")
        used = (f"{cpu[name]:.2f}" for name in ("monitors", "server", "database"))
        cells.append((*known, *used, f"{max(row['resident_mib'])} ({row['peak_mib']})", grown["prefect"], grown["records"]))
    yield from _table(titles, cells)
    yield ""
    sweeps = rows[0]["n"] + 1
    yield "A sweep's time is that of all monitors together, which begin it at the same moment. CPU is that of all processes from the"
    yield f"beginning of a sweep to that of the next. Growth: a run of {sweeps} sweeps of each monitor, as if there were one a minute."


def _growth(rows: Sequence[Row]) -> Iterator[str]:
    titles = (
        *("database", "minutes measured", "runs", "MiB a day: Prefect", "of which status tables", "records"),
        *("size now, MiB: Prefect", "records"),
    )
    cells = []
    for row in rows:
        grown, now = row["mib_a_day"], row["mib_now"]
        sizes = (grown["prefect"], row["of_which_tables"], grown["records"], now["prefect"], now["records"])
        cells.append((row["database"], row["minutes"], row["runs"], *sizes))
    yield from _table(titles, cells)


def _incidents(rows: Sequence[Row]) -> Iterator[str]:
    titles = ("database", "incidents", "monitors", "detected after, s: median (most)", "healthy", "all closed after, s", "fixed twice")
    cells = []
    for row in rows:
        spans = [f"{row[name]['median']:.2f} ({row[name]['most']:.2f})" for name in ("detected_seconds", "healthy_seconds")]
        twice = "none" if not row["problems"] else "; ".join(row["problems"])
        cells.append((row["database"], row["incidents"], row["monitors"], *spans, f"{row['all_closed_seconds']:.2f}", twice))
    yield from _table(titles, cells)
    yield ""
    longest = max(row["seconds_to_fill"] for row in rows)
    yield f"Seconds from the beginning of the fault, which takes up to {longest:.2f} s; a sweep each 2 s."
    yield "Healthy by the servers' own word; fixed once by the count of CONFIG SET on each server, and of fixes and steps on record."


def draw(report: Row, path: Path) -> None:
    """How time, CPU, memory and growth go with the number of resources, and healing with that of incidents."""
    from matplotlib.figure import Figure  # not quick to import

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3)
    rows = report["sweeps"]
    _lines(axes[0][0], rows, "seconds a sweep", lambda row: row["seconds"])
    _lines(axes[0][1], rows, "CPU seconds a sweep, all processes", lambda row: sum(row["cpu_seconds_a_sweep"].values()))
    _lines(axes[0][2], rows, "memory of all monitors, MiB", lambda row: sum(row["resident_mib"]))
    _lines(axes[1][0], rows, "growth of both databases, MiB an hour", lambda row: sum(row["grown_mib_an_hour"].values()))
    _incident_lines(axes[1][1], report["incidents"])
    _growth_bars(axes[1][2], report["growth"])
    figure.suptitle("Cost by size; points are 1, 2 and 4 monitor processes", x=0.01, ha="left", fontweight="bold", color=INK)
    figure.savefig(path, dpi=130, facecolor="white")


def _lines(axis: "Axes", rows: Sequence[Row], title: str, value: Any) -> None:
    for database, color in COLORS.items():
        for monitors, mark in MARKS.items():
            points = sorted((row["resources"], value(row)) for row in rows if (row["database"], row["monitors"]) == (database, monitors))
            if points:
                label = f"{database}, {monitors} monitor{'s' if monitors > 1 else ''}"
                axis.plot(*zip(*points, strict=True), marker=mark, color=color, alpha=0.85, label=label)
    axis.set_xscale("log")
    sizes = sorted({row["resources"] for row in rows})
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axis.set_xticks([], minor=True)
    _finish(axis, title, "resources")


def _incident_lines(axis: "Axes", rows: Sequence[Row]) -> None:
    for database, color in COLORS.items():
        points = sorted((row["incidents"], row["healthy_seconds"]["most"]) for row in rows if row["database"] == database)
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=color, label=database)
    _finish(axis, "seconds until all are healthy", "incidents at once")


def _growth_bars(axis: "Axes", rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        bottom = 0.0
        for name, alpha in (("prefect", 0.9), ("records", 0.5)):
            size = max(row["mib_a_day"][name], 0)
            axis.bar(place, size, bottom=bottom, color=COLORS[row["database"]], alpha=alpha, label=f"{row['database']}: {name}")
            bottom += size
    axis.axhline(GROWTH_GOAL_MIB, color=INK, linestyle=":", linewidth=1)
    axis.set_xticks([])
    axis.set_xlim(-0.6, max(len(rows), 1) + 0.6)
    _finish(axis, "MiB a day, 1,000 healthy resources; dotted: the goal", "")


def _finish(axis: "Axes", title: str, below: str) -> None:
    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.set_xlabel(below, fontsize=9)
    axis.set_ylim(bottom=0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, frameon=False)
