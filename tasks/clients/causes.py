"""What lies behind an error that a client library raised."""


def is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether the error, or one that it was raised from or during, is of that kind."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__cause__ or seen.__context__
    return seen is not None
