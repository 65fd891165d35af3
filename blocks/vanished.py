"""Runs whose process is gone without a word are ended, by a Prefect automation: one for all inventories of a server.

A worker marks the run of a process that dies as Crashed. Where the worker went with it, nobody does, and the run would be shown as
running for ever. Every run of Prefect's sends heartbeats; this is what waits for them. Remediations don't wait for it: what a sweep takes
over, it marks itself.
"""

from datetime import timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

VANISHED = "evenkeel: end runs whose process is gone"
TAG = "evenkeel"
HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 180
"""Prefect's default, PREFECT_FLOWS_HEARTBEAT_FREQUENCY."""
SILENCE_SECONDS = 2 * HEARTBEAT_SECONDS + 60
OF_PREFECT = ("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "TimedOut", "RolledBack", "Suspended", "Paused", "AwaitingRetry")
OURS = ("NoActionNeeded", "Escalated", "Abandoned", "AwaitingApproval", "Proposed", "Refused", "Declined")
"""Names of states in which a run of ours ends. Prefect's events bear the names, not the types."""


def vanished(silence_seconds: float = SILENCE_SECONDS) -> AutomationCore:
    """What is to be saved. It fires for a run whose last heartbeat was followed neither by another nor by an end."""
    ends = {f"prefect.flow-run.{name}" for name in (*OF_PREFECT, *OURS)}
    return AutomationCore(
        name=VANISHED,
        description=f"A run that has sent no heartbeat for {silence_seconds:g} s, and has not ended, has no process any more.",
        tags=[TAG],
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}),
            after={HEARTBEAT},
            expect={HEARTBEAT, *ends},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_seconds),
        ),
        # Without force: Prefect refuses it for a run that has ended after all.
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"its process is gone: no heartbeat for {silence_seconds:g} s")],
    )


async def save_vanished(client: PrefectClient) -> int:
    """Save the automation where it is not saved yet; one that a person has switched off or changed stays so. Returns how many it saved."""
    if await client.read_automations_by_name(VANISHED):
        return 0
    await client.create_automation(vanished())
    return 1
