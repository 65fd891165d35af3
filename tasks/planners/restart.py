"""\"Just restart it\": what healing is compared with. It asks for no reason, and looks at nothing but whether the thing is down."""

from tasks.catalog import Catalog
from tasks.core.models import Context, Decision, Plan, Step

STARTS = {"container_down": "docker_start", "oom_killed": "docker_start"}
"""What `docker restart` would do and the tool leaves to another: to start what is down."""


class RestartPlanner:
    """Restarts whatever an incident was opened for; escalates where there is nothing to restart."""

    name = "restart"

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def plan(self, context: Context) -> Plan:
        """One step, the restart of the incident's resource, whatever is wrong with it."""
        known = self._catalog.tools_for(context.incident.kind)
        wanted = [STARTS[symptom] for symptom in context.incident.symptoms if symptom in STARTS]
        tool = next((name for name in (*wanted, *known) if name in known and (name in wanted or "restart" in name)), None)
        if tool is None:
            diagnosis = f"nothing of kind {context.incident.kind} can be restarted"
            return Plan(planner=self.name, decision=Decision.ESCALATE, diagnosis=diagnosis)
        step = Step(tool=tool, target=context.incident.resource, why="an incident was opened for it")
        return Plan(planner=self.name, decision=Decision.ACT, diagnosis="none is made: whatever it is, a restart may help", steps=(step,))
