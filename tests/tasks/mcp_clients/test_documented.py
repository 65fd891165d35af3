"""What the documentation says of the conformance suite."""

from pathlib import Path

from tests.tasks.mcp_clients.conformance import APPLICABLE, LEFT_OUT, UNTESTABLE

DOCUMENT = Path(__file__).parent.parent.parent.parent / "docs" / "mcp.md"


def test_the_documentation_lists_every_scenario_and_why_one_is_left_out() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    named = {name for scenarios in APPLICABLE.values() for name in scenarios} | set(UNTESTABLE)
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []
    assert [name for name, why in LEFT_OUT.items() if f"| `{name}` | {why} |" not in text] == []
