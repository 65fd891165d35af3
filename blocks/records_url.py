"""Where the records are kept: one reading of a database URL for everything that takes one. No Prefect."""

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DEFAULT_PATH = Path(".evenkeel/records.db")
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def records_url(given: str | None = None) -> URL:
    """The URL with its async driver and an absolute path; without one, DEFAULT_PATH below the working directory.

    ValueError says what is wrong with it and never repeats it: it may hold a password.
    """
    if given is None:
        return URL.create(DRIVERS["sqlite"], database=str(DEFAULT_PATH.absolute()))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ValueError("no database URL; write sqlite:///path/records.db or postgresql://user:password@host:port/database") from None
    if url.drivername not in DRIVERS:
        raise ValueError(f"no records in {url.drivername!r}; use sqlite:///... or postgresql://...")
    url = url.set(drivername=DRIVERS[url.drivername])
    if url.get_backend_name() == "sqlite":
        if url.database in {None, "", ":memory:"} or str(url.database).startswith("file:"):
            raise ValueError("records need a file: an in-memory database forgets its locks; write sqlite:///path/records.db")
        return url.set(database=str(Path(str(url.database)).expanduser().absolute()))
    if not url.database:
        raise ValueError("the URL names no database; write postgresql://user:password@host:port/database")
    if "sslmode" in url.query:  # libpq's name for what the driver calls ssl
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    return url
