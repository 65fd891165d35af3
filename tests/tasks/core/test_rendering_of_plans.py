"""How a plan came about, as the UI shows it."""

from blocks.schema import Inventory
from tasks.core.models import Context, Decision, Incident, Plan, Usage
from tasks.core.rendering import planning_markdown, usage_text


def test_what_was_used_and_what_went_wrong_is_shown(incident: Incident, inventory: Inventory) -> None:
    context = Context(incident=incident, resource=inventory.resource("cache"), observation=incident.observation)
    used = Usage(requests=2, input_tokens=4000, output_tokens=300, dollars=0.0123, seconds=1.5)
    note = "gemini: 503 <b>overloaded</b> -> runbook"
    shown = planning_markdown(context, Plan(planner="runbook", decision=Decision.ESCALATE, diagnosis="d", usage=used, notes=(note,)), ())
    assert "**Used:** 2 requests, 4000 input and 300 output tokens, 0.0123 dollars, 1.50 s of waiting for the model" in shown
    assert "- note: gemini: 503 &lt;b>overloaded&lt;/b> -> runbook" in shown


def test_where_no_model_was_asked_nothing_was_used() -> None:
    assert usage_text(Usage()) == ""
