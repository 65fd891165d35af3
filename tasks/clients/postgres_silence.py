"""Why a PostgreSQL server gave no answer."""

from enum import StrEnum

from tasks.core.errors import EvenkeelError, ToolFailed, Unreachable


class Reason(StrEnum):
    """Why a server gave no answer."""

    REFUSED = "refused"  # nobody listens, or the connection broke
    TIMEOUT = "timeout"
    STARTING = "starting"  # starting up, shutting down or in recovery
    FULL = "full"  # no connection is left for this user
    LOGIN = "login"  # user, password, database or address are not accepted
    UNRESOLVED = "unresolved"  # the host's name could not be looked up
    FAILED = "failed"  # connected, and the statement failed


class NoAnswer(EvenkeelError):
    """There was no connection, or no answer to a statement that changes nothing."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def as_tool_error(self) -> Unreachable | ToolFailed:
        """The same in the terms of a tool: Unreachable where another try may succeed, ToolFailed where the server said no."""
        kind = ToolFailed if self.reason in {Reason.LOGIN, Reason.FAILED} else Unreachable
        return kind(str(self))


# PostgreSQL reports no SQLSTATE for a refused connection through libpq, only its text.
_REASONS: tuple[tuple[Reason, tuple[str, ...]], ...] = (
    (Reason.FULL, ("too many clients", "too many connections", "remaining connection slots")),
    (Reason.STARTING, ("database system is", "not yet accepting connections", "recovery mode")),
    (Reason.UNRESOLVED, ("resolve host", "translate host name", "Name or service not known")),
    (
        Reason.REFUSED,
        ("Connection refused", "unreachable", "No route to host", "server closed the connection", "Connection reset", "timed out"),
    ),
)


def reason_of(message: str) -> Reason:
    """Why a connection was refused, by libpq's or the server's message; whatever is not known is a matter of the login."""
    return next((reason for reason, texts in _REASONS if any(text in message for text in texts)), Reason.LOGIN)
