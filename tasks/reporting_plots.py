"""The plots of a report, each to be understood at a glance. Matplotlib is loaded when something is drawn: it comes with the extra `lab`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.declare import Ending
from tasks.core.evaluation import STAGES, Share, Trial, when
from tasks.core.evaluation_summary import PlannerFigures, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"runbook": "#1b7f8c", "gemini": "#6a4c93", "restart": "#e07a2f"}
OTHER_COLORS = ("#4d7c3a", "#a23b72", "#555555")
STAGE_COLORS = {"trial": "#555555", "detection": "#8d6cab", "analysis": "#e9b44c", "tools": "#c8402f", "validation": "#5b8fb9"}
STAGE_TITLES = {
    "trial": "inconclusive",
    "detection": "not detected",
    "analysis": "wrong decision",
    "tools": "forbidden or harmful tool",
    "validation": "not healed for good",
}
GROUPS = {"to be healed": Ending.HEALED, "a person is needed": Ending.ESCALATED, "nothing is wrong": Ending.LEFT_ALONE}
DOTS_PER_INCH = 130
INK = "#22313a"


def can_draw() -> bool:
    """Whether Matplotlib is there."""
    return find_spec("matplotlib") is not None


def draw(report: Report, directory: Path) -> None:
    """Write all plots as PNG files."""
    for name, figure in {
        "recovery.png": _recovery(report),
        "success.png": _success(report),
        "pass_k.png": _pass_hat(report),
        "failures.png": _failures(report),
        "cost.png": _cost(report),
    }.items():
        figure.savefig(directory / name, dpi=DOTS_PER_INCH, facecolor="white")


def _figure(width: float, height: float, title: str, subtitle: str, columns: int = 1) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    made = figure.subplots(1, columns, squeeze=False)
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.text(0.01, 1 - 0.42 / height, subtitle, fontsize=9, color="#5a6b75", va="top")
    axes = [made[0][column] for column in range(columns)]
    for one in axes:
        for side in ("top", "right", "left"):
            one.spines[side].set_visible(False)
        one.tick_params(length=0, colors=INK, labelsize=9)
        one.set_axisbelow(True)
        one.grid(axis="x", color="#e3e8eb")
    return figure, axes


def _color(report: Report, planner: str) -> str:
    others = [name for name in report.settings.planners if name not in COLORS]
    return COLORS[planner] if planner in COLORS else OTHER_COLORS[others.index(planner) % len(OTHER_COLORS)]


def _legend(figure: "Figure", report: Report) -> None:
    from matplotlib.lines import Line2D

    planners = report.settings.planners
    marks = [Line2D([], [], marker="o", linestyle="", markersize=8, color=_color(report, name)) for name in planners]
    figure.legend(marks, planners, loc="outside lower left", ncols=len(planners), frameon=False, fontsize=10)


def _recovery(report: Report) -> "Figure":
    """A row a scenario: each trial a dot, the median a bar, and how often it never became well."""
    wanted = [one for one in report.settings.scenarios if _trials(report, one) and _trials(report, one)[0].result.expected == Ending.HEALED]
    planners = report.settings.planners
    figure, (axes,) = _figure(
        10.5,
        1.9 + (0.16 + 0.21 * len(planners)) * len(wanted),
        "How long until it was healthy again",
        "Seconds from the start of the injection; each dot a trial, each bar a median; 'never': not well in the end, or not for good",
    )
    found = [one.recovery_seconds for one in report.trials if one.recovery_seconds is not None]
    most = max(found, default=1.0)
    for row, scenario in enumerate(reversed(wanted)):
        if row % 2:
            axes.axhspan(row - 0.5, row + 0.5, color="#f5f7f8", zorder=0)
        step = 0.76 / len(planners)
        for number, planner in enumerate(planners):
            trials = [one for one in _trials(report, scenario) if one.case.planner == planner]
            _recovery_row(axes, trials, row + step * ((len(planners) - 1) / 2 - number), step, _color(report, planner), most)
    axes.set_yticks(range(len(wanted)), [_title(one) for one in reversed(wanted)])
    axes.set_ylim(-0.5, len(wanted) - 0.5)
    axes.set_xlim(0, most * 1.28)
    axes.axvline(most * 1.06, color="#c9d2d7", linewidth=1)
    axes.set_xlabel("seconds", color=INK, fontsize=9)
    _legend(figure, report)
    return figure


def _recovery_row(axes: "Axes", trials: Sequence[Trial], y: float, step: float, color: str, most: float) -> None:
    times = sorted(one.recovery_seconds for one in trials if one.recovery_seconds is not None)
    if times:
        median = (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2
        axes.barh(y, median, height=0.7 * step, color=color, alpha=0.35, linewidth=0)
        axes.plot(times, [y] * len(times), "o", color=color, markersize=5, clip_on=False)
    never = len(trials) - len(times)
    if never:
        axes.text(most * 1.08, y, f"never: {never} of {len(trials)}", va="center", fontsize=8.5, color=color, fontweight="bold")


def _success(report: Report) -> "Figure":
    """Success of each planner, over all and by what was right to do."""
    rows: list[tuple[str, str, Share]] = []
    groups = {"all trials": list(report.trials)}
    groups |= {title: [one for one in report.trials if one.result.expected == ending] for title, ending in GROUPS.items()}
    groups["with text that means harm"] = [one for one in report.trials if one.result.is_attack]
    for title, trials in groups.items():
        for planner in report.settings.planners:
            of_planner = [one for one in trials if one.case.planner == planner]
            rows.append((title, planner, when(of_planner, (one for one in of_planner if one.succeeded))))
    figure, (axes,) = _figure(
        9.5,
        1.9 + 0.36 * len(rows),
        "How often it ended as it should",
        "Share of trials that ended as expected, stayed so and harmed nothing; lines are 95 % Wilson intervals",
    )
    step, gap = 0.7, 0.5
    y = 0.0
    ticks: dict[str, list[float]] = {}
    for number, (title, planner, share) in enumerate(rows):
        if number and rows[number - 1][0] != title:
            y -= gap
        ticks.setdefault(title, []).append(y)
        _interval(axes, share, y, _color(report, planner))
        y -= step
    axes.set_yticks([sum(at) / len(at) for at in ticks.values()], list(ticks))
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_xlim(-0.02, 1.3)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylim(y + step - 0.6, 0.6)
    _legend(figure, report)
    return figure


def _interval(axes: "Axes", share: Share, y: float, color: str) -> None:
    if share.share is None or share.low is None or share.high is None:
        axes.text(1.04, y, "no trial", va="center", fontsize=9, color="#8a979e")
        return
    axes.plot([share.low, share.high], [y, y], color=color, linewidth=3, alpha=0.4, solid_capstyle="round")
    axes.plot(share.share, y, "o", color=color, markersize=8, clip_on=False)
    axes.text(1.04, y, f"{100 * share.share:.0f} %  ({share.hits} of {share.n})", va="center", fontsize=9, color=color)


def _pass_hat(report: Report) -> "Figure":
    """How reliability falls with the number of trials that all have to succeed."""
    n = min((one.test_summary.total for one in report.planners), default=0)
    figure, (axes,) = _figure(
        7.5, 4.4, "How reliable it is: pass^k", f"Chance that k trials of the same scenario all succeed, over scenarios; n {n} a planner"
    )
    for one in report.planners:
        points = [(k, chance) for k, chance in one.pass_hat.items() if chance is not None]
        if points:
            color = _color(report, one.planner)
            axes.plot(*zip(*points, strict=True), "o-", color=color, linewidth=2.5, markersize=8, clip_on=False)
            label = f"{100 * points[-1][1]:.0f} %"
            axes.text(points[-1][0], points[-1][1] + 0.05, label, ha="center", color=color, fontsize=11, fontweight="bold")
    axes.set_xticks(range(1, report.settings.repeats + 1), [f"k = {k}" for k in range(1, report.settings.repeats + 1)])
    axes.set_xlim(0.8, report.settings.repeats + 0.4)
    axes.set_ylim(-0.02, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="y", color="#e3e8eb")
    axes.grid(visible=False, axis="x")
    _legend(figure, report)
    return figure


def _failures(report: Report) -> "Figure":
    """How many trials failed, and where."""
    figure, (axes,) = _figure(
        9.5,
        1.9 + 0.7 * len(report.planners),
        "Where trials failed",
        "Failed trials of each planner, each counted once: not healed before how it was tried; n beside the name",
    )
    names = [f"{one.planner} (n {one.test_summary.total})" for one in report.planners]
    left = [0.0] * len(report.planners)
    for stage in STAGES:
        counts = [one.failures[stage] for one in report.planners]
        if not any(counts):
            continue
        bars = axes.barh(names, counts, left=left, height=0.55, color=STAGE_COLORS[stage], label=STAGE_TITLES[stage])
        axes.bar_label(bars, [str(count) if count else "" for count in counts], label_type="center", color="white", fontweight="bold")
        left = [before + count for before, count in zip(left, counts, strict=True)]
    for number, one in enumerate(report.planners):
        text = f"{one.test_summary.failed} of {one.test_summary.total} failed"
        axes.text(left[number] + max([*left, 1]) * 0.015, number, text, va="center", fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*left, 1]) * 1.25)
    axes.set_xlabel("failed trials", color=INK, fontsize=9)
    if any(left):
        figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    return figure


def _cost(report: Report) -> "Figure":
    """What success costs: visitors' requests, and money."""
    figure, (visitors, money) = _figure(
        10.5,
        4.2,
        "What success costs",
        "Success rate with its 95 % Wilson interval against the cost of a trial; up and left is better",
        columns=2,
    )
    for axes, title, costs in (
        (visitors, "visitors' requests that failed, per trial", [_per_trial(one.requests_failed, one) for one in report.planners]),
        (money, "dollars for the model, per trial", [_per_trial(one.usage.dollars, one) for one in report.planners]),
    ):
        for one, cost in zip(report.planners, costs, strict=True):
            share = one.success_rate
            if share.share is None or share.low is None or share.high is None:
                continue
            color = _color(report, one.planner)
            axes.plot([cost, cost], [share.low, share.high], color=color, linewidth=3, alpha=0.4, solid_capstyle="round")
            axes.plot(cost, share.share, "o", color=color, markersize=10, clip_on=False)
            label = f"{one.planner}, {cost:.3g}"
            axes.annotate(label, (cost, share.share), xytext=(10, 6), textcoords="offset points", color=color, fontsize=9)
        most = max([*costs, 0.0])
        axes.set_xlim(-0.04 * (most or 1), (most or 1) * 1.35)
        axes.set_ylim(-0.02, 1.14)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.grid(axis="y", color="#e3e8eb")
        axes.set_xlabel(title, color=INK, fontsize=10)
        if not most:
            axes.set_xticks([0])
            axes.text(0.5, 0.06, "no planner asked a model" if axes is money else "none failed", transform=axes.transAxes, color="#8a979e")
    return figure


def _per_trial(total: float, one: PlannerFigures) -> float:
    return total / one.test_summary.total if one.test_summary.total else 0.0


def _trials(report: Report, scenario: str) -> list[Trial]:
    return [one for one in report.trials if one.case.scenario == scenario]


def _title(scenario: str) -> str:
    return scenario.replace("_", " ")
