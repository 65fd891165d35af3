"""A report as artifacts of the Prefect UI, and as files: Markdown, JSON and plots."""

from pathlib import Path

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from tasks.core.evaluation_report import markdown
from tasks.core.evaluation_summary import Report
from tasks.reporting_plots import draw


async def publish_report(report: Report, inventory: str) -> None:
    """Show the report and a row for each trial."""
    await acreate_markdown_artifact(markdown(report), key=f"evaluation-{inventory}", description="How planners did")
    rows = [
        {
            "scenario": one.case.scenario,
            "planner": one.case.planner,
            "repeat": one.case.repeat,
            "succeeded": one.succeeded,
            "ended as": one.result.outcome,
            "expected": one.result.expected,
            "recovery seconds": one.recovery_seconds,
            "requests failed": one.result.requests_failed,
            "tools": ", ".join(one.result.tools),
            "problems": "; ".join(one.result.problems),
        }
        for one in report.trials
    ]
    await acreate_table_artifact(rows, key=f"evaluation-trials-{inventory}", description="Trials of the evaluation")


def write_report(report: Report, directory: Path) -> None:
    """Write report.md, report.json and the plots; OSError where the directory can't be written to."""
    directory.mkdir(parents=True, exist_ok=True)
    draw(report, directory)
    _write(directory / "report.md", markdown(report, with_plots=True))
    _write(directory / "report.json", report.model_dump_json(indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(f"{path.suffix}.new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
