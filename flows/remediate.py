"""Heal one resource: gather, plan, authorise, execute, validate, record."""

from datetime import UTC, datetime
from typing import Any, Literal

from prefect import flow, runtime
from prefect.client.schemas.objects import State

from blocks.schema import Autonomy
from flows.healing import Remediation, end, heal, under_claim
from flows.restarting import restart_only
from tasks.charge import RESTART, planner_in_charge
from tasks.connecting import live
from tasks.context import first_incident
from tasks.core.models import FixRecord, Incident, Verdict

AutonomyChoice = Literal["as configured", "observe", "propose", "approve", "auto"]


def chosen(autonomy: AutonomyChoice) -> Autonomy | None:
    """The autonomy that a form's choice stands for; None: what the inventory says."""
    return None if autonomy == "as configured" else Autonomy(autonomy)


def _run_name() -> str:
    given: dict[str, Any] = runtime.flow_run.parameters
    incident = given.get("incident")
    if incident is None:
        return f"Heal {given['resource']} (by hand)"
    return f"Heal {incident.resource}: {incident.summary}"[:200]


@flow(name="remediate", flow_run_name=_run_name, persist_result=False)
async def remediate(
    resource: str, inventory: str = "lab", incident: Incident | None = None, autonomy: AutonomyChoice = "as configured"
) -> State[Any]:
    """Heal one resource of an inventory.

    Args:
        resource: Name of the resource in the inventory.
        inventory: Name of the inventory.
        incident: Given by the monitor; leave it empty to start from a fresh measurement.
        autonomy: How far to go; `propose` plans and shows what the policy says, and changes nothing. It can only make more cautious
            what the inventory allows.
    """
    async with live(inventory) as opened:
        target = opened.inventory.resource(resource)
        if incident is None:
            incident, observation = await first_incident(opened, target)
            if incident is None:
                return end(Verdict.NO_ACTION_NEEDED, f"{resource} is {observation.health} {observation.summary}".strip())
        owner = str(runtime.flow_run.id)
        record = FixRecord(id=incident.id, incident=incident, flow_run_id=owner, before=incident.observation, opened_at=incident.opened_at)
        if not await opened.records.open_fix(record, owner, datetime.now(UTC)):
            return end(Verdict.NO_ACTION_NEEDED, f"another remediation of {resource} is under way; this one did nothing")
        remediation = Remediation(opened, record, owner, autonomy=chosen(autonomy))
        work = restart_only if await planner_in_charge(opened) == RESTART else heal
        return await under_claim(remediation, lambda: work(remediation))
