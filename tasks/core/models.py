"""The values that flow between probing, planning, execution and recording. All are immutable and serialisable."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, JsonValue

from blocks.model import Model
from blocks.schema import Kind, Resource, Risk


class Health(StrEnum):
    """State of a resource. UNKNOWN: it could not be measured, which says nothing about the server."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_breach(self) -> bool:
        """Whether this health can open an incident."""
        return self in {Health.DEGRADED, Health.FAILED}


class Reading(Model):
    """What a probe measured; units stand in the names of the values."""

    values: dict[str, JsonValue]


class Forecast(Model):
    """That a figure is going to cross its threshold, and at which pace it rises."""

    metric: str = Field(description="Value of the reading; its threshold has the same name.")
    per_second: float = Field(gt=0)


class Finding(Model):
    """One thing that is wrong, named by a symptom that runbooks are declared for."""

    symptom: str = Field(description="Short name, such as memory_high.")
    health: Health
    summary: str = Field(description="One sentence with the figures.")
    forecast: Forecast | None = Field(None, description="It is not so yet: the pace at which it comes. None: it is measured.")

    @property
    def predicted(self) -> bool:
        """Whether it is not measured yet, only going to come."""
        return self.forecast is not None


class Observation(Model):
    """One probe of one resource: reading, findings and the health that follows."""

    resource: str
    kind: Kind
    health: Health
    findings: tuple[Finding, ...] = ()
    reading: Reading = Reading(values={})
    summary: str = ""
    taken_at: datetime
    seconds: float = Field(0, ge=0, description="How long the probe took.")

    @property
    def predicted(self) -> bool:
        """Whether all that is wrong is predicted, and nothing measured."""
        return bool(self.findings) and all(finding.predicted for finding in self.findings)


class Incident(Model):
    """A resource that needs a remediation."""

    id: str
    inventory: str
    resource: str
    kind: Kind
    health: Health
    symptoms: tuple[str, ...]
    summary: str
    opened_at: datetime
    observation: Observation


class Step(Model):
    """One tool call of a plan."""

    tool: str
    target: str = Field(description="Name of the resource.")
    args: dict[str, JsonValue] = Field(default_factory=dict)
    why: str = Field(min_length=1)


class Decision(StrEnum):
    """What a plan amounts to; the three are equal answers."""

    ACT = "act"
    NOTHING = "nothing"
    ESCALATE = "escalate"


class Usage(Model):
    """What a planner consumed."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = Field(0, description="Answer and thinking.")
    dollars: float = 0
    seconds: float = Field(0, description="Time spent waiting for the model.")

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class Plan(Model):
    """A checked plan. `planner` says who made it and is shown wherever the plan is."""

    planner: str
    decision: Decision
    diagnosis: str
    evidence: tuple[str, ...] = ()
    reasoning: str = ""
    expected: str = Field("", description="The reading that shows success.")
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    patience_seconds: float = Field(0, ge=0, le=3600, description="Of `nothing`: how long it may take until it is well by itself.")
    notes: tuple[str, ...] = Field((), description="How it came about: what was investigated, repaired, or why another planner took over.")


class Change(Model):
    """What a tool changed, read back from the server. Equal sides: nothing had to be changed."""

    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    undo: dict[str, JsonValue] | None = Field(None, description="Arguments for the tool's undo; none: it can't be taken back.")


class OutcomeStatus(StrEnum):
    """How a step ended."""

    DONE = "done"
    NOT_APPLICABLE = "not_applicable"
    UNREACHABLE = "unreachable"
    OUTCOME_UNKNOWN = "outcome_unknown"
    FAILED = "failed"
    DENIED = "denied"
    DRY_RUN = "dry_run"


class Outcome(Model):
    """A step and what came of it."""

    step: Step
    status: OutcomeStatus
    change: Change | None = None
    message: str = ""
    started_at: datetime
    seconds: float = 0
    undoes: bool = Field(False, description="Whether this step took an earlier one back.")

    @property
    def changed_something(self) -> bool:
        """Whether the server is known to be different, or may be."""
        if self.status is OutcomeStatus.OUTCOME_UNKNOWN:
            return True
        return self.status is OutcomeStatus.DONE and self.change is not None and self.change.before != self.change.after


class Attempt(Model):
    """A plan, its outcomes and what was measured afterwards: the feedback for the next plan."""

    plan: Plan
    observed: Observation | None = Field(None, description="What the plan was made from.")
    facts: dict[str, dict[str, JsonValue]] = Field(default_factory=dict, description="Read-only tool -> what it read.")
    decisions: tuple[str, ...] = Field((), description="The policy's word on each step.")
    comment: str = Field("", description="What a person said who rejected the plan.")
    outcomes: tuple[Outcome, ...] = ()
    after: Observation | None = None
    kept: bool = Field(False, description="Something is still wrong, but what the steps are remedies for is gone: nothing was taken back.")
    restored: Observation | None = Field(None, description="What was measured when the changes had been taken back.")
    exonerated: bool = Field(
        False,
        description="It was taken back for something new, which stayed, while its own trouble came back: it may be used again.",
    )


class ToolSummary(Model):
    """What a planner is told about a tool."""

    name: str
    summary: str
    risk: Risk
    undo: str | None = Field(None, description="The tool that takes it back.")
    symptoms: tuple[str, ...] = Field((), description="It runs only while one of these is measured; empty: no such condition.")
    after: tuple[str, ...] = Field((), description="Milder tools that come first where they fit.")
    args_schema: dict[str, Any]


class Context(Model):
    """Everything a planner may know."""

    incident: Incident
    resource: Resource
    observation: Observation
    facts: dict[str, dict[str, JsonValue]] = Field(default_factory=dict, description="Read-only tool -> what it read.")
    dependencies: tuple[Observation, ...] = ()
    past_fixes: tuple[str, ...] = Field((), description="One line each, the most alike first.")
    recent_changes: tuple[str, ...] = Field(
        (), description="What earlier remediations changed on the resource, one line each, newest first."
    )
    error_lines: tuple[str, ...] = Field((), description="Templated error log lines with their counts.")
    attempts: tuple[Attempt, ...] = ()
    tools: tuple[ToolSummary, ...] = ()


class Verdict(StrEnum):
    """How a remediation ended; also the name of the final state of its flow run."""

    COMPLETED = "Completed"
    NO_ACTION_NEEDED = "NoActionNeeded"
    ESCALATED = "Escalated"
    FAILED = "Failed"
    ABANDONED = "Abandoned"


class FixRecord(Model):
    """The whole story of one remediation."""

    id: str
    incident: Incident
    planner: str = ""
    flow_run_id: str = ""
    attempts: tuple[Attempt, ...] = ()
    before: Observation
    after: Observation | None = None
    verdict: Verdict | None = None
    message: str = ""
    opened_at: datetime
    closed_at: datetime | None = None
    timings: dict[str, float] = Field(default_factory=dict, description="Stage -> seconds since the incident was opened.")


Trend = Literal["rising", "steady", "falling"]
