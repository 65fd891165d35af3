"""What a planner is."""

from typing import Protocol

from tasks.core.models import Context, Plan


class Planner(Protocol):
    """Turns a context into a checked plan. Its name stands in every plan and record."""

    name: str

    async def plan(self, context: Context) -> Plan:
        """A plan whose steps are checked; deciding to do nothing or to escalate are plans too."""
