"""Run by alembic: the revisions are applied on the connection, and in the transaction, of whoever opens the records."""

from alembic import context

from tasks.records.schema import VERSION_TABLE
from tasks.records.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite can change hardly anything of a table in place
)
context.run_migrations()
