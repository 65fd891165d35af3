"""What planners were asked, what others would have answered in the shadow, and which planner an evaluation has put in charge."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.DateTime(timezone=True)
FIX = "evenkeel_fixes.id"


def upgrade() -> None:
    """New tables alone; one that is there already is as it should be."""
    op.create_table(
        "evenkeel_questions",
        sa.Column("fix_id", sa.String, sa.ForeignKey(FIX, ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("question", sa.JSON, nullable=False),
        sa.Column("acted", sa.JSON, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "evenkeel_shadows",
        sa.Column("fix_id", sa.String, sa.ForeignKey(FIX, ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("answer", sa.JSON, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "evenkeel_charges",
        sa.Column("inventory", sa.String, primary_key=True),
        sa.Column("planner", sa.String, nullable=False),
        sa.Column("until", TIME, nullable=False),
        if_not_exists=True,
    )
