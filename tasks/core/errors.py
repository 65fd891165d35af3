"""What can go wrong in a probe or a tool. Each class says what is known about the server afterwards."""


class EvenkeelError(Exception):
    """Base of the project's own errors."""


class NotApplicable(EvenkeelError):
    """The resource is in the wrong state for this; nothing was done."""


class Unreachable(EvenkeelError):
    """The server could not be reached; nothing was sent. The only error after which a step is repeated."""


class OutcomeUnknown(EvenkeelError):
    """The request was sent and its reply was lost; measure again before anything else."""


class ToolFailed(EvenkeelError):
    """The server refused, or the effect did not show."""


class ProbeBroken(EvenkeelError):
    """The probe itself can't measure (its login is refused, say): the resource's health is unknown."""


class PlanInvalid(EvenkeelError):
    """An answer is no executable plan; `problems` lists why, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
