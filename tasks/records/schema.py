"""The schema of the records: made in an empty database, and brought up to date in an old one, in whatever transaction it is called."""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from tasks.core.errors import EvenkeelError
from tasks.records.tables import fixes, metadata

MIGRATIONS = Path(__file__).parent / "migrations"
REVISIONS = tuple(sorted(path.name[1:5] for path in (MIGRATIONS / "versions").glob("r[0-9]*.py")))
FIRST, LATEST = REVISIONS[0], REVISIONS[-1]
"""A database that holds fixes and names no revision is of the first."""
VERSION_TABLE = "evenkeel_version"
version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


class SchemaUnknown(EvenkeelError):
    """The database was made by a newer version, which may keep there what this one would spoil."""


def bring_up_to_date(connection: Connection) -> None:
    """Create what an empty database lacks, or migrate; nothing where all is as it should be.

    Whoever calls holds a lock that lets only one process do so. SchemaUnknown if a newer version was here.
    """
    found = revision_of(connection)
    if found == LATEST:
        return
    if found is None:
        metadata.create_all(connection)
        _stamp(connection, LATEST)
    elif found not in REVISIONS:
        raise SchemaUnknown(f"its schema is of revision {found!r}, and this version knows up to {LATEST}; upgrade evenkeel")
    else:
        migrate(connection, LATEST)


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema; None: there is none."""
    existing = set(inspect(connection).get_table_names())
    if VERSION_TABLE in existing:
        found: str = connection.execute(select(version.c.version_num)).scalar_one()
        return found
    if fixes.name in existing:
        _stamp(connection, FIRST)
        return FIRST
    return None


def migrate(connection: Connection, to: str) -> None:
    """Apply the revisions up to this one."""
    # Half a second to import, which nobody should pay who has nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _stamp(connection: Connection, revision: str) -> None:
    version.create(connection)
    connection.execute(insert(version).values(version_num=revision))
