"""Plans that were made, kept so that another planner, prompt or policy can be asked the same again. Pure."""

import math
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from blocks.model import Model
from blocks.schema import Rules
from tasks.core.models import Context, FixRecord, Plan, Step, Usage
from tasks.core.policy import Action, Ruling, Standing
from tasks.core.ruling import strictest

Z_95 = 1.959964


class Question(Model):
    """What a planner was asked, and what the policy knew when it ruled on the answer."""

    context: Context = Field(description="Without tools and attempts: the catalogue and the fix have them.")
    standing: Standing
    rules: Rules

    @classmethod
    def of(cls, context: Context, standing: Standing, rules: Rules) -> "Question":
        """The question of a context, without what is kept elsewhere."""
        return cls(context=context.model_copy(update={"attempts": (), "tools": ()}), standing=standing, rules=rules)


class Ruled(Model):
    """A plan and the policy's word on each of its steps."""

    plan: Plan
    rulings: tuple[Ruling, ...] = ()

    @property
    def word(self) -> Action | None:
        """The strictest of the rulings; None: the plan has no step."""
        return strictest(self.rulings)


class ShadowAnswer(Model):
    """What a planner in the shadow would have done. Nothing of it was."""

    planner: str
    answer: Ruled | None = None
    said: str = Field("", description="Why there is no answer.")
    usage: Usage = Field(Usage(), description="No part of what the fix has used.")
    seconds: float = Field(0, ge=0, description="How long it took, beside the acting planner.")


class Planned(Model):
    """One plan of a fix: what was asked, what was answered, and what a shadow would have answered."""

    attempt: int = Field(ge=1)
    asked_at: datetime
    question: Question
    acted: Ruled
    shadow: ShadowAnswer | None = None


class SavedIncident(Model):
    """A fix with the questions of its plans."""

    fix: FixRecord
    planned: tuple[Planned, ...] = ()

    def context(self, planned: Planned) -> Context:
        """The context of one of its plans, with the attempts that were made before it; the catalogue adds the tools."""
        return planned.question.context.model_copy(update={"attempts": self.fix.attempts[: planned.attempt - 1]})


class Archive(Model):
    """A file of incidents."""

    format: Literal["evenkeel-incidents"] = "evenkeel-incidents"
    version: Literal[1] = 1
    incidents: tuple[SavedIncident, ...] = ()


class Sameness(StrEnum):
    """How far two plans agree."""

    SAME = "same"
    ARGUMENTS = "other arguments"
    DIFFERENT = "different"
    NONE = "no plan"


class Comparison(Model):
    """A plan that was made beside the one that would be made now. Nothing of the latter was executed."""

    fix: str
    attempt: int
    resource: str
    what: str = Field(description="What was measured.")
    was: Ruled
    now: tuple[Ruling, ...] = Field((), description="The policy's word now on the plan that was made then.")
    done: tuple[str, ...] = Field((), description="What was executed then, each step with how it ended.")
    verdict: str
    planner: str = Field(description="Who was asked again.")
    would: Ruled | None = None
    said: str = Field("", description="Why there is no plan.")
    usage: Usage = Usage()

    @property
    def sameness(self) -> Sameness:
        """How far the new plan agrees with the old one."""
        return Sameness.NONE if self.would is None else sameness(self.was.plan, self.would.plan)

    @property
    def is_bolder(self) -> bool:
        """Whether something would be done without a person now that was not to be done without one then."""
        return self.would is not None and self.would.word is Action.ALLOW and self.was.word is not Action.ALLOW


class Agreement(Model):
    """How often two planners agree, over many plans."""

    plans: int
    same: int
    other_arguments: int
    different: int
    without_plan: int
    low_percent: float = Field(description="Lower end of the 95 % Wilson interval of `same`.")
    high_percent: float
    bolder: int = Field(description="Plans that would run without a person now and did not then.")
    refused: int = Field(description="Plans of which the policy would deny a step.")
    policy_differs: int = Field(description="Plans that were made then on which the policy says something else now.")
    usage: Usage = Usage()


def sameness(one: Plan, other: Plan) -> Sameness:
    """How far two plans agree: in their decision, and in their steps with the arguments, in order."""
    if one.decision is not other.decision or [step.tool for step in one.steps] != [step.tool for step in other.steps]:
        return Sameness.DIFFERENT
    return Sameness.SAME if _calls(one.steps) == _calls(other.steps) else Sameness.ARGUMENTS


def _calls(steps: Sequence[Step]) -> list[tuple[str, object]]:
    return [(step.target, step.args) for step in steps]


def agreement(comparisons: Sequence[Comparison]) -> Agreement:
    """The comparisons in figures."""
    counts = {kind: sum(one.sameness is kind for one in comparisons) for kind in Sameness}
    low, high = wilson_percent(counts[Sameness.SAME], len(comparisons))
    return Agreement(
        plans=len(comparisons),
        same=counts[Sameness.SAME],
        other_arguments=counts[Sameness.ARGUMENTS],
        different=counts[Sameness.DIFFERENT],
        without_plan=counts[Sameness.NONE],
        low_percent=low,
        high_percent=high,
        bolder=sum(one.is_bolder for one in comparisons),
        refused=sum(one.would is not None and one.would.word is Action.DENY for one in comparisons),
        policy_differs=sum([ruling.action for ruling in one.now] != [ruling.action for ruling in one.was.rulings] for one in comparisons),
        usage=sum((one.usage for one in comparisons), Usage()),
    )


def wilson_percent(successes: int, of: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share, in percent; of nothing: all is possible."""
    if not of:
        return 0.0, 100.0
    share, squared = successes / of, Z_95**2
    middle, width = share + squared / (2 * of), Z_95 * math.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    low, high = ((middle + sign * width) / (1 + squared / of) for sign in (-1, 1))
    return round(100 * max(low, 0), 1), round(100 * min(high, 1), 1)
