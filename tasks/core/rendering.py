"""Records as tables and markdown, as the Prefect UI shows them. Pure: values in, text out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.core.declare import Tool
from tasks.core.models import Attempt, Context, FixRecord, Health, Observation, Outcome, Plan, Usage, Verdict
from tasks.core.policy import loss_of
from tasks.core.verdicts import trend

MARK = {Health.HEALTHY: "🟢", Health.DEGRADED: "🟠", Health.FAILED: "🔴", Health.UNKNOWN: "⚪"}
VERDICT_MARK = {
    Verdict.COMPLETED: "✅",
    Verdict.NO_ACTION_NEEDED: "⚪",
    Verdict.ESCALATED: "🙋",
    Verdict.FAILED: "❌",
    Verdict.ABANDONED: "💤",
}
ARROW = {"rising": "↗", "steady": "→", "falling": "↘"}
Row = dict[str, Any]


def number(value: object) -> str:
    """A reading as people write it: at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def status_row(observation: Observation, headline: str, history: Sequence[float], state: str) -> Row:
    """One resource in the status table."""
    value = observation.reading.values.get(headline)
    return {
        "resource": observation.resource,
        "kind": str(observation.kind),
        "health": f"🟡 {observation.health} (predicted)" if observation.predicted else f"{MARK[observation.health]} {observation.health}",
        "reading": "" if value is None else f"{headline} {number(value)}",
        "trend": ARROW[trend(history)],
        "what": observation.summary or "all checks pass",
        "now": state,
        "measured": f"{observation.taken_at:%H:%M:%SZ}",
    }


def readings_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The values that differ, as a markdown table."""
    rows = [(name, before.get(name), after.get(name)) for name in [*before, *(name for name in after if name not in before)]]
    changed = [(name, old, new) for name, old, new in rows if old != new]
    if not changed:
        return "_No value differs._"
    lines = ["| reading | before | after |", "|---|---|---|"]
    lines += [f"| {cell(name)} | {cell(number(old))} | {cell(number(new))} |" for name, old, new in changed]
    return "\n".join(lines)


def cell(text: object) -> str:
    """Text that can't break out of a table's cell or start markup."""
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:300]


def usage_text(used: Usage) -> str:
    """What a planner has used, in one line; empty where no model was asked."""
    if not used.requests:
        return ""
    requests = "1 request" if used.requests == 1 else f"{used.requests} requests"
    tokens = f"{used.input_tokens} input and {used.output_tokens} output tokens"
    return f"{requests}, {tokens}, {used.dollars:.4f} dollars, {used.seconds:.2f} s of waiting for the model"


def _origin(plan: Plan) -> list[str]:
    """How a plan came about and what it used, as markdown lines."""
    used = usage_text(plan.usage)
    return [*([f"**Used:** {used}"] if used else []), "", *[f"- note: {cell(note)}" for note in plan.notes], ""]


def planning_markdown(context: Context, plan: Plan, rulings: Iterable[str]) -> str:
    """The planner's question and answer."""
    question = context.model_dump(mode="json", include={"observation", "facts", "dependencies", "past_fixes", "error_lines"})
    steps = [
        f"{position}. `{step.tool}` {json.dumps(step.args)} on `{step.target}`  \n   why: {cell(step.why)}  \n   policy: {cell(ruling)}"
        for position, (step, ruling) in enumerate(zip(plan.steps, rulings, strict=False), start=1)
    ]
    return "\n".join(
        [
            f"# How shall {context.resource.name} be healed?",
            f"Attempt {len(context.attempts) + 1}, planned by **{plan.planner}**.",
            f"## Answer: {plan.decision}",
            f"**Diagnosis:** {cell(plan.diagnosis)}",
            "",
            *[f"- evidence: {cell(item)}" for item in plan.evidence],
            "",
            f"**Reasoning:** {cell(plan.reasoning) or '-'}",
            f"**Expected:** {cell(plan.expected) or '-'}",
            *_origin(plan),
            *steps,
            "",
            "## Question",
            "<details><summary>What the planner was given</summary>\n",
            f"```json\n{json.dumps(question, indent=1, default=str)}\n```\n",
            "</details>",
        ]
    )


def approval_markdown(record: FixRecord, tools: Mapping[str, Tool]) -> str:
    """What a person decides on: what will be done, why, what could be lost and how it is undone."""
    attempt = record.attempts[-1]
    lines = [
        f"**{cell(record.incident.resource)}** is {record.incident.health}: {cell(record.incident.summary)}",
        "",
        f"**Diagnosis** ({attempt.plan.planner}): {cell(attempt.plan.diagnosis)}",
        "",
    ]
    for position, (step, decision) in enumerate(zip(attempt.plan.steps, attempt.decisions, strict=False), start=1):
        tool = tools[step.tool]
        undo = f"`{tool.undo}` takes it back if it does not help" if tool.undo else "it can't be taken back"
        lines += [
            f"{position}. `{step.tool}` {json.dumps(step.args)}",
            f"    - what it does: {tool.summary}",
            f"    - why: {cell(step.why)}",
            f"    - what could be lost: {loss_of(tool, attempt.observed or record.incident.observation)}",
            *([f"    - cost: {tool.cost}"] if tool.cost else []),
            f"    - undo: {undo}",
            f"    - policy: {cell(decision)}",
        ]
    return "\n".join([*lines, "", f"**Expected:** {cell(attempt.plan.expected) or '-'}"])


def validation_rows(record: FixRecord) -> list[Row]:
    """Before and after of every step, in order."""
    rows: list[Row] = []
    for position, attempt in enumerate(record.attempts, start=1):
        rows += [_outcome_row(position, outcome) for outcome in attempt.outcomes]
        if attempt.after is not None:
            rows.append(
                {
                    "attempt": position,
                    "step": "validate",
                    "result": f"{MARK[attempt.after.health]} {attempt.after.health}",
                    "before": record.before.summary,
                    "after": attempt.after.summary or "all checks pass",
                    "seconds": round(attempt.after.seconds, 3),
                }
            )
    return rows


def _outcome_row(position: int, outcome: Outcome) -> Row:
    before = outcome.change.before if outcome.change else {}
    after = outcome.change.after if outcome.change else {}
    return {
        "attempt": position,
        "step": f"{'undo: ' if outcome.undoes else ''}{outcome.step.tool} {json.dumps(outcome.step.args)}",
        "result": f"{outcome.status} {outcome.message}".strip(),
        "before": ", ".join(f"{name} {number(value)}" for name, value in before.items() if after.get(name) != value),
        "after": ", ".join(f"{name} {number(value)}" for name, value in after.items() if before.get(name) != value),
        "seconds": round(outcome.seconds, 3),
    }


def history_row(record: FixRecord) -> Row:
    """One remediation in the fix history."""
    return {
        "when": f"{record.opened_at:%Y-%m-%d %H:%M:%SZ}",
        "resource": record.incident.resource,
        "what": record.incident.summary,
        "planner": record.planner,
        "steps": ", ".join(outcome.step.tool for attempt in record.attempts for outcome in attempt.outcomes),
        "verdict": "⏳ under way" if record.verdict is None else f"{VERDICT_MARK[record.verdict]} {record.verdict}",
        "healthy after": f"{record.timings['healthy']:.2f} s" if "healthy" in record.timings else "",
        "retries": max(len(record.attempts) - 1, 0),
        "id": record.id,
    }


def incident_markdown(record: FixRecord) -> str:
    """An incident with its timeline, a diagram and every step's readings."""
    verdict = record.verdict or "under way"
    lines = [
        f"# {record.incident.resource}: {cell(record.incident.summary)}",
        f"**{verdict}**: {cell(record.message)}",
        "",
        "```mermaid",
        _diagram(record),
        "```",
        "## Timeline",
        "| after | what |",
        "|---|---|",
        f"| 0.00 s | {record.incident.health}: {cell(record.incident.summary)} ({record.incident.opened_at:%Y-%m-%d %H:%M:%SZ}) |",
        *[f"| {seconds:.2f} s | {name} |" for name, seconds in sorted(record.timings.items(), key=lambda item: item[1])],
    ]
    for position, attempt in enumerate(record.attempts, start=1):
        lines += _attempt_markdown(position, attempt)
    if record.after is not None:
        lines += ["## Readings before and after", readings_table(record.before.reading.values, record.after.reading.values)]
    return "\n".join(lines)


def _attempt_markdown(position: int, attempt: Attempt) -> list[str]:
    lines = [f"## Attempt {position}, planned by {attempt.plan.planner}", cell(attempt.plan.diagnosis), "", *_origin(attempt.plan)]
    for outcome in attempt.outcomes:
        title = f"{'undo: ' if outcome.undoes else ''}`{outcome.step.tool}` {json.dumps(outcome.step.args)}"
        lines += [f"### {title}: {outcome.status} in {outcome.seconds:.2f} s", cell(outcome.step.why), ""]
        if outcome.message:
            lines += [f"> {cell(outcome.message)}", ""]
        if outcome.change is not None:
            lines += [readings_table(outcome.change.before, outcome.change.after), ""]
    return lines


def _diagram(record: FixRecord) -> str:
    lines = ["flowchart LR", f'  detected["{_label(record.incident.summary)}"]']
    last = "detected"
    for position, attempt in enumerate(record.attempts, start=1):
        plan = f"plan{position}"
        lines += [f'  {plan}["{_label(attempt.plan.planner)}"]', f"  {last} --> {plan}"]
        last = plan
        for place, outcome in enumerate(attempt.outcomes, start=1):
            node = f"step{position}_{place}"
            lines += [f'  {node}["{_label(outcome.step.tool)}: {outcome.status}"]', f"  {last} --> {node}"]
            last = node
        if attempt.after is not None:
            node = f"after{position}"
            lines += [f'  {node}(["{attempt.after.health}"])', f"  {last} --> {node}"]
            last = node
    lines += [f'  verdict{{{{"{record.verdict or "under way"}"}}}}', f"  {last} --> verdict"]
    return "\n".join(lines)


def _label(text: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in " .,:%_/()=-" else " " for letter in text)
    return kept[:80]
