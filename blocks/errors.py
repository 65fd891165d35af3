"""What is wrong with a configuration."""

from collections.abc import Sequence


class ConfigurationError(Exception):
    """The configuration can't be used. `problems` says why, each with its field and remedy; none holds a secret."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
