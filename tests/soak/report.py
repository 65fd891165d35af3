"""What a soak found, as Markdown, JSON and a plot."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tasks.core.trends import Point
from tests.soak.ageing import Ages
from tests.soak.course import EVERY_SECONDS, Soak, Trial
from tests.soak.faults import NAMES
from tests.soak.judging import (
    COUNTS,
    MEMORY,
    ROWS,
    STORED,
    WARM_UP_SHARE,
    Allowance,
    Flatness,
    OfScenario,
    by_scenario,
    flatness,
    left_over,
    wrong_endings,
)
from tests.soak.processes import PREFECT_DATABASE, RUNS, SELF, WORKER, of_lab
from tests.soak.samples import Sample, counts_of, of_groups, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRASHED = "Crashed"
FOLLOWING = {
    *(f"descriptors of {one}" for one in (RUNS, WORKER, SELF, PREFECT_DATABASE, of_lab("database"))),
    f"processes of {of_lab('database')}",
}
"""What follows the number of runs and of sessions just then: only whether it comes back is judged."""
MOST_ROWS = 8
"""Tables that the plot shows."""
DOTS_PER_INCH = 120
INK = "#22313a"
LEGEND: dict[str, Any] = {"fontsize": 7, "frameon": False, "ncols": 3, "loc": "upper center", "bbox_to_anchor": (0.5, -0.1)}
"""Below the plot, where no line is."""


@dataclass(frozen=True)
class Findings:
    """What is concluded from a soak."""

    seconds: float
    trials: Sequence[Trial]
    scenarios: Sequence[OfScenario]
    trends: Sequence[Flatness]
    problems: Sequence[str]
    seed: int
    ages: Ages
    at_rest: Mapping[str, float]
    at_the_end: Mapping[str, float]
    samples: Sequence[Sample]
    is_complete: bool
    notes: Sequence[str] = field(default_factory=list)


def findings_of(soak: Soak) -> Findings:
    """Conclude what there is to conclude from a soak, also from one that was ended early."""
    samples = soak.sampler.samples
    seconds = samples[-1].seconds if samples else 0.0
    trials = sorted(soak.trials, key=lambda one: one.number)
    trends = _trends(samples, seconds, soak.ages)
    problems = [*wrong_endings(one.ended for one in trials), *filter(None, (one.problem for one in trends)), *soak.problems]
    if samples:
        problems += [f"left over: {one}" for one in left_over(samples[-1].overdue, samples[-1].rows)]
        crashed = max(one.states.get(CRASHED, 0) for one in samples)
        problems += [f"{crashed:.0f} flow run(s) crashed"] if crashed else []
    if not soak.is_complete:
        problems.append("the soak was ended before its time")
    return Findings(
        seconds=seconds,
        trials=trials,
        scenarios=by_scenario(one.ended for one in trials),
        trends=trends,
        problems=problems,
        seed=soak.seed,
        ages=soak.ages,
        at_rest=soak.at_rest,
        at_the_end=soak.at_the_end,
        samples=samples,
        is_complete=soak.is_complete,
        notes=_notes(samples, trials, soak.ages),
    )


def _trends(samples: list[Sample], seconds: float, ages: Ages) -> list[Flatness]:
    warm = WARM_UP_SHARE * seconds
    # From then on as much is deleted as is written.
    level = max(warm, ages.kept_seconds + 3 * ages.every_seconds)

    def of(found: Mapping[str, list[Point]], prefix: str, unit: str, since: float, allowance: Allowance) -> Iterable[Flatness]:
        return [flatness(f"{prefix}{name}", unit, points, since, allowance) for name, points in sorted(found.items())]

    memory = {name: points for name, points in of_groups(samples, "memory_mib").items() if name not in {RUNS, SELF}}
    memory |= {name: points for name, points in of_groups(samples, "largest_mib").items() if name == RUNS}
    counts: dict[str, list[Point]] = {}
    for sample in samples:
        for name, count in counts_of(sample).items():
            if name not in FOLLOWING:
                counts.setdefault(name, []).append((sample.seconds, count))
    stored = {name: points for name, points in series(samples, "mebibytes").items() if name != "logs"}
    return [
        *of(memory, "memory of ", "MiB", warm, MEMORY),
        *of(counts, "", "", warm, COUNTS),
        *of(series(samples, "rows"), "rows of ", "rows", level, ROWS),
        *of(stored, "bytes of ", "MiB", level, STORED),
    ]


def _notes(samples: Sequence[Sample], trials: Sequence[Trial], ages: Ages) -> list[str]:
    """Figures that nothing is judged by."""
    if len(samples) < 2 or not trials:
        return []
    first, last = samples[0], samples[-1]
    hours = (last.seconds - first.seconds) / 3600
    inserted = last.written - first.written
    together = sum(bool(one.beside) for one in trials)
    late = sum(one.began_seconds > one.due_seconds + 2 for one in trials)
    logs = last.mebibytes.get("logs", 0) - first.mebibytes.get("logs", 0)
    loads = [one.load for one in samples]
    kept = sum(count for name, count in last.rows.items() if not name.startswith("files"))
    return [
        f"{len(trials)} faults in {last.seconds:.0f} s, one each {EVERY_SECONDS:g} s; {together} beside another, {late} late",
        f"{inserted / len(trials):.0f} rows written to Prefect's database a fault, watching included; {kept:.0f} rows are there at the end",
        f"runs, events and records are deleted from an age of {ages.kept_seconds:.0f} s on, looked for each {ages.every_seconds:.0f} s",
        f"the machine's load was {median(loads):.0f} (median) and up to {max(loads):.0f}, on {os.cpu_count()} processors",
        f"logs grew by {logs / hours if hours else 0:.1f} MiB an hour; to rotate them is the system's business",
    ]


def write(findings: Findings, directory: Path) -> None:
    """Write report.md, soak.json and soak.png."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.md").write_text(_markdown(findings), encoding="utf-8")
    (directory / "soak.json").write_text(json.dumps(_plain(findings), indent=1, default=str) + "\n", encoding="utf-8")
    if findings.samples:
        _draw(findings, directory / "soak.png")


def _plain(findings: Findings) -> dict[str, Any]:
    shallow = {one.name: getattr(findings, one.name) for one in dataclasses.fields(findings)}
    trials = [dataclasses.asdict(one) | {"result": one.result.model_dump(mode="json")} for one in findings.trials]
    return shallow | {
        "ages": dataclasses.asdict(findings.ages),
        "trials": trials,
        "scenarios": [dataclasses.asdict(one) for one in findings.scenarios],
        "trends": [dataclasses.asdict(one) | {"problem": one.problem} for one in findings.trends],
        "samples": [dataclasses.asdict(one) for one in findings.samples],
    }


def _markdown(findings: Findings) -> str:
    right = sum(one.right for one in findings.scenarios)
    n = len(findings.trials)
    verdict = f"{len(findings.problems)} problem(s):" if findings.problems else "Nothing is wrong."
    lines = [
        f"# Soak of {findings.seconds / 60:.0f} minutes",
        "",
        f"{right} of {n} faults ended right. {verdict}",
        "",
        *(f"- {one}" for one in findings.problems),
        *([""] if findings.problems else []),
        *(f"- {one}" for one in findings.notes),
        f"- seed {findings.seed}; {len(NAMES)} scenarios, each as often as any other",
        "",
        "## Faults",
        "",
        "Seconds from the start of the injection until it was measured healthy.",
        "",
        "| scenario | expected | n | right | person called | not brought about at first | median | p95 |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(one) for one in findings.scenarios),
        "",
        "## From beginning to end",
        "",
        "Growth by the line of Theil and Sen, without the first tenth; of rows and bytes from when as much is deleted as written.",
        "",
        "| what | measurements | at first | at last | growth | allowed | |",
        "|---|---|---|---|---|---|---|",
        *(_trend(one) for one in findings.trends if one.points),
        "",
        "## At rest before the first fault and after the last",
        "",
        "| what | before | after |",
        "|---|---|---|",
        *(f"| {name} | {count:.0f} | {findings.at_the_end.get(name, 0):.0f} |" for name, count in sorted(findings.at_rest.items())),
        "",
    ]
    return "\n".join(lines)


def _row(one: OfScenario) -> str:
    times = (one.median_seconds, one.p95_seconds)
    shown = " | ".join("" if value is None else f"{value:.1f} s" for value in times)
    wrong = f"**{one.right}**" if one.wrong else f"{one.right}"
    return f"| `{one.scenario}` | {one.expected} | {one.n} | {wrong} | {one.called or ''} | {one.again or ''} | {shown} |"


def _trend(one: Flatness) -> str:
    told = "too short to tell" if not one.is_judged else "**grows**" if one.problem else ""
    return f"| {one.name} | {one.points} | {one.first:.0f} {one.unit} | {one.last:.0f} | {one.growth:+.1f} | {one.allowed:.0f} | {told} |"


def _draw(findings: Findings, path: Path) -> None:
    from matplotlib.figure import Figure

    samples = list(findings.samples)
    figure = Figure(figsize=(13, 9), layout="constrained")
    memory, rows, counts, times = figure.subplots(2, 2).flat
    title = f"Soak: {len(findings.trials)} faults in {findings.seconds / 60:.0f} minutes"
    figure.suptitle(title, fontsize=13, fontweight="bold", color=INK)
    _lines(memory, "memory, MiB (flow runs: the largest)", _memory(samples))
    found = series(samples, "rows")
    largest = sorted(found, key=lambda name: -max(value for _, value in found[name]))[:MOST_ROWS]
    _lines(rows, f"rows, the {MOST_ROWS} largest tables", {name: found[name] for name in largest}, is_logarithmic=True)
    both = {f"connections of {name}": points for name, points in series(samples, "connections").items()}
    both |= {f"processes of {name}": points for name, points in of_groups(samples, "processes").items() if name in {RUNS, PREFECT_DATABASE}}
    _lines(counts, "connections and processes", both)
    _times(times, findings.trials)
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")


def _memory(samples: list[Sample]) -> dict[str, list[Point]]:
    all_of_it = of_groups(samples, "memory_mib") | {RUNS: of_groups(samples, "largest_mib").get(RUNS, [])}
    return {name: points for name, points in all_of_it.items() if name != SELF}


def _lines(axes: "Axes", title: str, found: Mapping[str, Sequence[Point]], *, is_logarithmic: bool = False) -> None:
    for name, points in sorted(found.items()):
        if points:
            axes.plot([at / 60 for at, _ in points], [value for _, value in points], label=name, linewidth=1.4)
    if is_logarithmic:
        axes.set_yscale("symlog")
    _dress(axes, title)
    axes.legend(**LEGEND)


def _times(axes: "Axes", trials: Sequence[Trial]) -> None:
    for service in ("redis", "postgres", "nginx"):
        points = [
            (one.began_seconds / 60, one.result.healthy_seconds)
            for one in trials
            if one.result.scenario.startswith(service) and one.result.outcome == "healed" and one.result.healthy_seconds is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o", markersize=4, label=service)
    _dress(axes, "seconds from injection to healthy")
    axes.set_ylim(bottom=0)
    axes.legend(**LEGEND)


def _dress(axes: "Axes", title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel("minutes", fontsize=8, color=INK)
    axes.grid(color="#e3e8eb")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
