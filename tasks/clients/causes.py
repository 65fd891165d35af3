"""What lies behind an error that a client library raised."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether the error, or one that it was raised from or during, is of that kind."""
    return find_cause(error, kind) is not None


def find_cause(error: BaseException, kind: type[E]) -> E | None:
    """The error itself, or the nearest one that it was raised from or during, of that kind."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__cause__ or seen.__context__
    return seen
