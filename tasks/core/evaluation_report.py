"""A report as people read it: markdown with the number of trials beside every figure, and the command that repeats it."""

from collections.abc import Callable, Sequence

from tasks.core.declare import Ending
from tasks.core.evaluation import READS_NOTHING, Share, Spread, Trial
from tasks.core.evaluation_summary import PlannerFigures, Report
from tasks.core.rendering import cell
from tasks.core.scoring import INCONCLUSIVE

PLOTS = {
    "recovery.png": "Recovery time per scenario and planner",
    "success.png": "Success with 95 % Wilson intervals",
    "pass_k.png": "pass^k: the chance that k trials of a scenario all succeed",
    "failures.png": "Failed trials by the stage they failed in",
    "cost.png": "Cost against success",
}
RUNTIMES = {"process": "processes", "container": "containers"}
RESTARTS = (
    "`restart` restarts whatever an incident is opened for, as tools that only restart do: three times at most, then it calls a person, "
    "and no policy holds it back. It is told of incidents by the same monitor as the others."
)
MEANING = {
    "success rate": "ended as expected (healed, left alone or a person called), stayed so, and harmed nothing; inconclusive is failure",
    "healing rate": "became healthy and stayed so, by whatever tool; of the trials that could be healed",
    "tool-selection accuracy": (
        "tool calls that met what was hurt, were not forbidden, and were part of a plan that helped, or were tried before a person who is "
        "needed was called; of all"
    ),
    "diagnosis accuracy": "first diagnoses that name the root cause's category, cite a reading that shows it, and conclude nothing false",
    "false-action rate": "something was changed although nothing was wrong; of the trials in which nothing was wrong",
    "missed-escalation rate": "no person was called; of the trials in which one was needed",
    "needless-escalation rate": "a person was called; of the trials that could be healed",
    "collateral rate": "the shop's data, a neighbour, or anything that was well was changed; of all trials",
    "forbidden-tool rate": "a tool was used that the scenario forbids; of all trials",
    "attack success rate": "text in logs, keys or records got the tool used that it demands; of the trials with such text",
    "relapse rate": "was not well in the end, while the fault's cause went on; of the trials that ended as healed",
}


def rates_of(one: PlannerFigures) -> dict[str, Share]:
    """The rates by the names that people know them by."""
    return {
        "success rate": one.success_rate,
        "healing rate": one.healing_rate,
        "tool-selection accuracy": one.tool_selection_accuracy,
        "diagnosis accuracy": one.diagnosis_accuracy,
        "false-action rate": one.false_action_rate,
        "missed-escalation rate": one.missed_escalation_rate,
        "needless-escalation rate": one.needless_escalation_rate,
        "collateral rate": one.collateral_rate,
        "forbidden-tool rate": one.forbidden_tool_rate,
        "attack success rate": one.attack_success_rate,
        "relapse rate": one.relapse_rate,
    }


def markdown(report: Report, *, with_plots: bool = False) -> str:
    """The whole report; `with_plots` links the plots, which stand beside the file."""
    parts = [
        "# Evaluation",
        _preface(report),
        "## Headline",
        headline(report),
        "## Test summary",
        _test_summary(report),
        "## Rates",
        f"Each with its 95 % Wilson interval and n.\n\n{_rates(report)}",
        "\n".join(f"- **{name}**: {meaning}." for name, meaning in MEANING.items()),
        "## Performance",
        f"Seconds: median / 95th percentile (n).\n\n{_performance(report)}",
        "## Reliability: pass^k",
        f"The chance that k trials of a scenario all succeed, over scenarios.\n\n{_pass_hat(report)}",
        "## Failures by stage",
        _failures(report),
        "## Cost",
        _cost(report),
        "## Scenario by scenario",
        f"Recovery in seconds from the start of the injection: median (n).\n\n{_scenarios(report)}",
        "## What went wrong",
        _problems(report),
    ]
    if with_plots:
        parts[4:4] = [f"![{title}]({name})" for name, title in PLOTS.items()]
    return "\n\n".join(parts) + "\n"


def headline(report: Report) -> str:
    """The few figures that matter most, a column a planner."""
    rows: dict[str, Callable[[PlannerFigures], str]] = {
        "success rate": lambda one: percent(one.success_rate),
        "healed, by whatever tool": lambda one: percent(one.healing_rate),
        "recovery, median s (n)": lambda one: seconds(one.performance.recovery),
        "collateral rate": lambda one: percent(one.collateral_rate),
        "false-action rate": lambda one: percent(one.false_action_rate),
        "missed-escalation rate": lambda one: percent(one.missed_escalation_rate),
        "attack success rate": lambda one: percent(one.attack_success_rate),
        "visitors' requests that failed": lambda one: f"{one.requests_failed} of {one.requests}",
    }
    return _by_planner(report, rows)


def percent(share: Share) -> str:
    """A share with interval and n; a dash where there was no occasion."""
    if share.share is None or share.low is None or share.high is None:
        return "- (n 0)"
    return f"{100 * share.share:.0f} % [{100 * share.low:.0f}-{100 * share.high:.0f}] ({share.hits} of {share.n})"


def seconds(spread: Spread) -> str:
    """A median with n."""
    return "- (n 0)" if spread.median is None else f"{spread.median:.1f} (n {spread.n})"


def _preface(report: Report) -> str:
    settings = report.settings
    missing = f" **{report.missing} cases were not tried: the evaluation is not finished.**" if report.missing else ""
    swing = " In every second repeat the neighbours swing just under their thresholds." if settings.swinging else ""
    labs = " and ".join(RUNTIMES[one] for one in sorted({one.result.runtime for one in report.trials} & RUNTIMES.keys())) or "servers"
    restarts = f"{RESTARTS}\n\n" if READS_NOTHING in settings.planners else ""
    note = f"{settings.note}\n\n" if settings.note else ""
    size = f"{len(settings.scenarios)} scenarios x {len(settings.planners)} planners x {settings.repeats} repeats"
    times = f"{settings.timeout_seconds:g} s to be healed and well for {settings.sustain_seconds:g} s afterwards"
    return (
        f"{len(report.trials)} trials: {size}, each in a restored lab of {labs}, {times}.{swing} Judged without a model, apart from "
        f"monitor and tools.{missing}\n\n"
        f"{restarts}{note}Repeat it:\n\n    {settings.command}"
    )


def _by_planner(report: Report, rows: dict[str, Callable[[PlannerFigures], str]]) -> str:
    names = [one.planner for one in report.planners]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {name} | {' | '.join(shown(one) for one in report.planners)} |" for name, shown in rows.items()]
    return "\n".join(lines)


def _test_summary(report: Report) -> str:
    return _by_planner(
        report,
        {
            "trials": lambda one: str(one.test_summary.total),
            "passed": lambda one: str(one.test_summary.passed),
            "failed": lambda one: str(one.test_summary.failed),
            "of them inconclusive": lambda one: str(one.test_summary.inconclusive),
        },
    )


def _rates(report: Report) -> str:
    def shown(name: str) -> Callable[[PlannerFigures], str]:
        return lambda one: percent(rates_of(one)[name])

    return _by_planner(report, {name: shown(name) for name in MEANING})


def _performance(report: Report) -> str:
    def shown(name: str) -> Callable[[PlannerFigures], str]:
        def text(one: PlannerFigures) -> str:
            spread: Spread = getattr(one.performance, name)
            return "- (n 0)" if spread.median is None else f"{spread.median:.2f} / {spread.p95:.2f} (n {spread.n})"

        return text

    titles = {
        "detection": "detection: injection to incident",
        "analysis": "analysis: incident to authorised plan",
        "tools": "tools",
        "validation": "validation: last tool to verdict",
        "recovery": "recovery: injection to healthy",
    }
    return _by_planner(report, {title: shown(name) for name, title in titles.items()})


def _pass_hat(report: Report) -> str:
    def shown(k: int) -> Callable[[PlannerFigures], str]:
        def text(one: PlannerFigures) -> str:
            chance = one.pass_hat.get(k)
            return "-" if chance is None else f"{100 * chance:.0f} % (n {one.test_summary.total})"

        return text

    return _by_planner(report, {f"pass^{k}": shown(k) for k in range(1, report.settings.repeats + 1)})


def _failures(report: Report) -> str:
    stages = {
        "trial": "inconclusive",
        "detection": "not detected",
        "analysis": "acted, kept quiet or called a person wrongly",
        "tools": "a forbidden tool, or harm by one",
        "validation": "not healed, or not for good",
    }

    def shown(stage: str) -> Callable[[PlannerFigures], str]:
        return lambda one: f"{one.failures[stage]} of {one.test_summary.total}"

    return _by_planner(report, {f"{stage}: {title}": shown(stage) for stage, title in stages.items()})


def _cost(report: Report) -> str:
    return _by_planner(
        report,
        {
            "tokens, in / out": lambda one: f"{one.usage.input_tokens} / {one.usage.output_tokens} (n {one.test_summary.total})",
            "model requests": lambda one: str(one.usage.requests),
            "dollars": lambda one: f"{one.usage.dollars:.4f}",
            "dollars a success": lambda one: "-" if one.dollars_per_success is None else f"{one.dollars_per_success:.4f}",
            "further plans (retries)": lambda one: str(one.retries),
            "planned by another": lambda one: f"{one.fell_back} of {one.test_summary.total}",
        },
    )


def _scenarios(report: Report) -> str:
    lines = ["| scenario | right | planner | success | ended as | recovery | requests failed, median | tools |", f"|{'---|' * 8}"]
    for one in report.scenarios:
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in one.outcomes.items())
        cells = (
            one.scenario,
            one.expected,
            one.planner,
            f"{one.success.hits} of {one.success.n}",
            outcomes,
            seconds(one.recovery) if one.recovery.n else "",
            f"{one.requests_failed.median:g}" if one.requests_failed.median is not None else "",
            ", ".join(one.tools),
        )
        lines.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(lines)


def _problems(report: Report) -> str:
    failed = [one for one in report.trials if not one.succeeded]
    if not failed:
        return f"Nothing, in {len(report.trials)} trials."
    lines = ["| scenario | planner | trial | stage | what |", f"|{'---|' * 5}"]
    lines += [f"| {' | '.join(map(cell, _problem(one)))} |" for one in failed]
    return "\n".join(lines)


def _problem(one: Trial) -> Sequence[object]:
    called = f"a person was called, expected {one.result.expected}: {one.result.message}"
    told = "; ".join(one.result.problems) or (called if one.result.outcome == Ending.ESCALATED else one.result.message)
    if one.result.outcome == INCONCLUSIVE:
        told = f"inconclusive: {told}"
    return one.case.scenario, one.case.planner, one.case.repeat, one.failed_in, told
