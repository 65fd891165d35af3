"""Taking back what an earlier remediation has left when its process vanished, before anything else is planned."""

from collections.abc import Callable
from functools import partial

from blocks.schema import Autonomy, Risk
from tasks.acting import Timed, validated
from tasks.connecting import Live
from tasks.core.abandoned import attempt_to_take_back, left_behind
from tasks.core.models import Attempt, FixRecord
from tasks.execution import execute, undo_of

LOOKED_BACK = 20
"""Fixes; as many remediations in a row have to vanish before anything is overlooked."""
HANDS_OFF = {Autonomy.OBSERVE, Autonomy.PROPOSE}


async def attempt_for_left_behind(live: Live, record: FixRecord, autonomy: Autonomy | None) -> Attempt | None:
    """The attempt that takes back what is left of the resource's last fixes, not carried out yet; None where nothing may or need be done.

    `autonomy`: of this run alone. Where changes are only observed or proposed, none is taken back either.
    """
    incident, rules = record.incident, live.inventory.rules
    resource = live.inventory.resource(incident.resource)
    if HANDS_OFF & {autonomy, resource.autonomy or rules.autonomy, rules.autonomy_of_risk.get(Risk.REVERSIBLE)}:
        return None
    earlier = await live.records.history(resource=incident.resource, inventory=incident.inventory, limit=LOOKED_BACK)
    steps = left_behind([one for one in earlier if one.id != record.id], partial(undo_of, live))
    return attempt_to_take_back(steps, record.before) if steps else None


async def take_back(live: Live, record: FixRecord, owner: str, attempt: Attempt, next_ordinal: Callable[[], int], timed: Timed) -> Attempt:
    """Carry such an attempt out: journalled like any other, and measured afterwards. It may be all that was wrong."""
    outcomes = tuple([await execute(record.id, owner, next_ordinal(), step, undoes=True) for step in attempt.plan.steps])
    after = await validated(live, record, 0, timed)
    return attempt.model_copy(update={"outcomes": outcomes, "after": after})
