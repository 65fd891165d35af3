"""Fixes with their journal, statuses, histories and monitors, and what planners have used.

Databases that were made before there were revisions are of this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Into an empty database."""
    op.create_table(
        "evenkeel_fixes",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("inventory", sa.String, nullable=False),
        sa.Column("resource", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("flow_run_id", sa.String, nullable=False),
        sa.Column("planner", sa.String, nullable=False),
        sa.Column("stage", sa.String, nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
        sa.Column("closed_at", TIME),
        sa.Column("waiting_until", TIME),
        sa.Column("verdict", sa.String),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("incident", sa.JSON, nullable=False),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON),
        sa.Column("attempts", sa.JSON, nullable=False),
        sa.Column("timings", sa.JSON, nullable=False),
    )
    op.create_index("evenkeel_fixes_by_resource", "evenkeel_fixes", ["inventory", "resource", "opened_at"])
    op.create_index("evenkeel_fixes_by_time", "evenkeel_fixes", ["opened_at"])
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        "evenkeel_fixes_one_open",
        "evenkeel_fixes",
        ["inventory", "resource"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "evenkeel_steps",
        sa.Column("fix_id", sa.String, sa.ForeignKey("evenkeel_fixes.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("step", sa.JSON, nullable=False),
        sa.Column("begun_at", TIME, nullable=False),
        sa.Column("outcome", sa.JSON),
    )
    op.create_index("evenkeel_steps_by_time", "evenkeel_steps", ["begun_at"])
    op.create_table(
        "evenkeel_statuses",
        sa.Column("inventory", sa.String, primary_key=True),
        sa.Column("resource", sa.String, primary_key=True),
        sa.Column("health", sa.String, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("headline", sa.Float),
        sa.Column("taken_at", TIME, nullable=False),
        sa.Column("trend", sa.JSON, nullable=False),
    )
    op.create_table(
        "evenkeel_histories",
        sa.Column("inventory", sa.String, primary_key=True),
        sa.Column("resource", sa.String, primary_key=True),
        sa.Column("points", sa.JSON, nullable=False),
    )
    op.create_table(
        "evenkeel_monitors",
        sa.Column("inventory", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("taken_over_at", TIME, nullable=False),
        sa.Column("last_sweep_at", TIME),
    )
    op.create_table(
        "evenkeel_planners",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("open_until", TIME),
    )
    op.create_table(
        "evenkeel_planner_use",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("dollars", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )
