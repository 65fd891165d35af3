"""Comparisons of plans as a table and in words. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from tasks.core.models import Plan
from tasks.core.policy import Ruling
from tasks.core.rendering import cell, usage_text
from tasks.core.replay import Agreement, Comparison, Ruled, Sameness, ShadowAnswer, agreement, sameness
from tasks.core.ruling import strictest

MARK = {Sameness.SAME: "🟰", Sameness.ARGUMENTS: "≈", Sameness.DIFFERENT: "≠", Sameness.NONE: "∅"}


def steps_text(plan: Plan) -> str:
    """What a plan would do, in one line."""
    if not plan.steps:
        return f"{plan.decision}: {plan.diagnosis}"[:200]
    return ", ".join(f"{step.tool} {json.dumps(step.args)}" if step.args else step.tool for step in plan.steps)


def rulings_text(rulings: Sequence[Ruling]) -> str:
    """The policy's word that counts, with its reason."""
    word = strictest(tuple(rulings))
    if word is None:
        return "nothing to rule on"
    reason = next(ruling.reason for ruling in rulings if ruling.action is word)
    return f"{word}: {reason}"


def comparison_row(one: Comparison) -> dict[str, Any]:
    """One plan in the table."""
    before, after = rulings_text(one.was.rulings), rulings_text(one.now)
    return {
        "fix": one.fix,
        "attempt": one.attempt,
        "what": one.what,
        "was planned": f"{one.was.plan.planner}: {steps_text(one.was.plan)}",
        "policy then": before,
        "policy now": "as then" if before == after else after,
        "was done": ", ".join(one.done) or "nothing",
        "ended": one.verdict,
        "would be planned": f"{one.planner}: {one.said}" if one.would is None else f"{one.planner}: {steps_text(one.would.plan)}",
        "policy": "" if one.would is None else rulings_text(one.would.rulings),
        "agrees": f"{MARK[one.sameness]} {one.sameness}",
    }


def agreement_text(found: Agreement) -> str:
    """The figures in sentences, as markdown."""
    if not found.plans:
        return "No plan with a recorded question was found."
    share = 100 * found.same / found.plans
    interval = f"{share:.0f} %, 95 % interval {found.low_percent:g} to {found.high_percent:g} %"
    others = f"{found.other_arguments} with other arguments, {found.different} different, {found.without_plan} without a plan"
    alone = f"{found.bolder} would run without a person now and did not then; the policy would deny {found.refused}"
    lines = [
        f"**{found.same} of {found.plans} plans are the same** ({interval}); {others}. Nothing of it was executed.",
        f"{alone}; on {found.policy_differs} of the old plans it says something else now.",
    ]
    used = usage_text(found.usage)
    return "\n\n".join([*lines, *([f"Used: {used}"] if used else [])])


def shadow_text(shadow: ShadowAnswer) -> str:
    """What a planner in the shadow would have done, in one line."""
    would = shadow.answer
    told = shadow.said if would is None else f"{steps_text(would.plan)}; policy: {rulings_text(would.rulings)}"
    return f"{shadow.planner}: {told}"


def shadow_markdown(resource: str, acted: Ruled | None, shadow: ShadowAnswer) -> str:
    """What a planner in the shadow would have done beside the one that acts."""
    would = shadow.answer
    agrees = Sameness.NONE if would is None or acted is None else sameness(acted.plan, would.plan)
    rows = [("in the shadow", shadow.planner, would)]
    if acted is not None:
        rows.insert(0, ("acts", acted.plan.planner, acted))
    lines = [f"# {resource}: {MARK[agrees]} {agrees}", "", "| | planner | plan | policy |", "|---|---|---|---|"]
    for role, planner, ruled in rows:
        planned = cell(shadow.said) if ruled is None else cell(steps_text(ruled.plan))
        lines.append(f"| {role} | {cell(planner)} | {planned} | {'' if ruled is None else cell(rulings_text(ruled.rulings))} |")
    if would is not None:
        lines += [
            "",
            f"**Diagnosis in the shadow:** {cell(would.plan.diagnosis)}",
            "",
            f"**Reasoning:** {cell(would.plan.reasoning) or '-'}",
        ]
    used = usage_text(shadow.usage)
    return "\n".join([*lines, "", f"Nothing of it is executed. {f'Used: {used}. ' if used else ''}It took {shadow.seconds:.2f} s."])


def report(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Everything as JSON: the figures, and each plan in full beside the one that was made."""
    plans = [one.model_dump(mode="json") | {"agrees": str(one.sameness), "is_bolder": one.is_bolder} for one in comparisons]
    return {"agreement": agreement(comparisons).model_dump(mode="json"), "plans": plans}
