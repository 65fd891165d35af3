"""What the records hold beside whole fixes, and how a fix becomes a row and comes back."""

from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import RowMapping

from blocks.model import Model
from tasks.core.models import FixRecord, Health, Outcome, Step

FIRST_STAGE = "opened"
NESTED = {"incident", "before", "after", "attempts", "timings"}
FIELDS = tuple(FixRecord.model_fields)


class OpenFix(Model):
    """A fix under way, and with it the lock on its resource."""

    fix_id: str
    resource: str
    owner: str
    flow_run_id: str
    heartbeat_at: datetime
    opened_at: datetime
    waiting_until: datetime | None = Field(None, description="How long a person's answer is waited for; none: a process is at work.")
    stage: str = Field(description="The stage reached last, by the record's timings.")


class JournalEntry(Model):
    """A step as it was journalled: before it ran, and after."""

    ordinal: int
    step: Step
    begun_at: datetime
    outcome: Outcome | None = Field(None, description="None: the step was begun and never ended.")


class Status(Model):
    """What was last seen of a resource. `since` and `trend` are kept by the records; what a caller gives there is ignored."""

    resource: str
    health: Health
    summary: str = ""
    headline: float | None = Field(None, description="The one figure that stands for the resource.")
    taken_at: datetime
    since: datetime | None = Field(None, description="Since when the health is what it is.")
    trend: tuple[float, ...] = Field((), description="The last headline figures, oldest first, each different from the one before.")


def story(record: FixRecord) -> dict[str, Any]:
    """The columns that change while a fix goes on."""
    nested = record.model_dump(mode="json", include=NESTED)
    return {
        **nested,
        "planner": record.planner,
        "flow_run_id": record.flow_run_id,
        "message": record.message,
        "stage": max(record.timings, key=record.timings.__getitem__, default=FIRST_STAGE),
    }


def fix_of(row: RowMapping) -> FixRecord:
    """The record that a row holds."""
    return FixRecord.model_validate({name: row[name] for name in FIELDS})
