"""Plans by rule: the first remedy of a matching runbook that has not been tried."""

from blocks.schema import Rules
from tasks.catalog import Catalog
from tasks.core.models import Context, Decision, Plan
from tasks.core.plans import already_tried, check_plan

NOT_MEASURED = "what is wrong can't be measured, so no rule can tell what to do"


class RunbookPlanner:
    """Deterministic planning; escalates where no rule speaks."""

    name = "runbook"

    def __init__(self, catalog: Catalog, rules: Rules) -> None:
        self._catalog = catalog
        self._rules = rules

    async def plan(self, context: Context) -> Plan:
        """The first untried remedy, or an escalation that says which runbooks were looked at."""
        symptoms = tuple(finding.symptom for finding in context.observation.findings)
        books = self._catalog.runbooks_for(context.incident.kind, symptoms)
        for book in books:
            for remedy in book.function(context):
                raw = Plan(
                    planner=f"{self.name}:{book.name}",
                    decision=Decision.ACT if remedy.steps else Decision.NOTHING,
                    diagnosis=remedy.diagnosis,
                    evidence=remedy.evidence or (context.observation.summary,),
                    reasoning=f"First remedy of the runbook {book.title!r} that fits and has not been tried.",
                    expected=remedy.expected,
                    steps=remedy.steps,
                    patience_seconds=remedy.patience_seconds,
                )
                plan = check_plan(raw.model_dump(), tools=self._catalog.tools, context=context, rules=self._rules)
                if not already_tried(plan.steps, context.attempts):  # checked steps, as those of an attempt are
                    return plan
        looked_at = ", ".join(book.title for book in books) or "none matches"
        return Plan(
            planner=self.name,
            decision=Decision.ESCALATE,
            diagnosis=f"no rule is left for {', '.join(symptoms)} (runbooks: {looked_at})" if symptoms else NOT_MEASURED,
            evidence=(context.observation.summary,),
        )
