"""The tables of the records. Times are UTC and aware; what is nested is JSON."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json, to_jsonable_python
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # a NUL or half a surrogate pair from a server's log: no database takes them


class Utc(TypeDecorator[datetime]):
    """An aware time, stored as UTC; SQLite would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """ValueError if the time has no zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; pass an aware time such as datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Line(TypeDecorator[str]):
    """Text that is stored whatever a server put into it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What can't be stored becomes U+FFFD."""
        return None if value is None else UNSTORABLE.sub("\ufffd", value)


def encode_json(value: Any) -> str:
    """JSON that every database takes: ASCII, and null for what is not a number."""
    try:
        # Ten times as fast: a monitor of thousands of resources writes megabytes of readings a minute.
        return to_json(value, inf_nan_mode="null").decode("ascii")
    except ValueError:  # another letter, or half of one
        return json.dumps(to_jsonable_python(value, inf_nan_mode="null"), allow_nan=False)


def _json(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, JSON(none_as_null=True), nullable=nullable)


metadata = MetaData()

fixes = Table(
    "evenkeel_fixes",
    metadata,
    Column("id", String, primary_key=True),
    Column("inventory", String, nullable=False),
    Column("resource", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("flow_run_id", String, nullable=False),
    Column("planner", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("heartbeat_at", Utc, nullable=False),
    Column("closed_at", Utc),
    Column("waiting_until", Utc),  # a person's answer is waited for, and no process need live meanwhile
    Column("verdict", String),
    Column("message", Line, nullable=False),
    _json("incident"),
    _json("before"),
    _json("after", nullable=True),
    _json("attempts"),
    _json("timings"),
)
Index("evenkeel_fixes_by_resource", fixes.c.inventory, fixes.c.resource, fixes.c.opened_at)
Index("evenkeel_fixes_by_time", fixes.c.opened_at)
# The lock: while a row of a resource is open, the database refuses a second one.
Index(
    "evenkeel_fixes_one_open",
    fixes.c.inventory,
    fixes.c.resource,
    unique=True,
    sqlite_where=text("closed_at IS NULL"),
    postgresql_where=text("closed_at IS NULL"),
)

steps = Table(
    "evenkeel_steps",
    metadata,
    Column("fix_id", String, ForeignKey(fixes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    _json("step"),
    Column("begun_at", Utc, nullable=False),
    _json("outcome", nullable=True),
)
Index("evenkeel_steps_by_time", steps.c.begun_at)

questions = Table(
    "evenkeel_questions",
    metadata,
    Column("fix_id", String, ForeignKey(fixes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("asked_at", Utc, nullable=False),
    _json("question"),
    _json("acted"),
)

shadows = Table(
    "evenkeel_shadows",
    metadata,
    Column("fix_id", String, ForeignKey(fixes.c.id, ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    _json("answer"),
)

statuses = Table(
    "evenkeel_statuses",
    metadata,
    Column("inventory", String, primary_key=True),
    Column("resource", String, primary_key=True),
    Column("health", String, nullable=False),
    Column("since", Utc, nullable=False),
    Column("summary", Line, nullable=False),
    Column("headline", Float),
    Column("taken_at", Utc, nullable=False),
    _json("trend"),
)

histories = Table(
    "evenkeel_histories",
    metadata,
    Column("inventory", String, primary_key=True),
    Column("resource", String, primary_key=True),
    _json("points"),
)

monitors = Table(
    "evenkeel_monitors",
    metadata,
    Column("inventory", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("taken_over_at", Utc, nullable=False),
    Column("last_sweep_at", Utc),
)

planners = Table(
    "evenkeel_planners",
    metadata,
    Column("name", String, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("open_until", Utc),
)

planner_use = Table(
    "evenkeel_planner_use",
    metadata,
    Column("name", String, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("dollars", Float, nullable=False),
    Column("seconds", Float, nullable=False),
)

charges = Table(
    "evenkeel_charges",
    metadata,
    Column("inventory", String, primary_key=True),
    Column("planner", String, nullable=False),
    Column("until", Utc, nullable=False),
)
