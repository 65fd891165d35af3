"""Groups of sessions of a PostgreSQL server, as its readings have them: what runbooks decide by."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from tasks.core.models import Context, Observation
from tasks.core.values import number

# Steps for "at least that old", so that a plan made twice from slightly different readings is the same plan.
AGES_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60)
SETTLED_SECONDS = 1.0
# Two readings closer than this tell nothing about growing older.
MIN_ELAPSED_SECONDS = 0.02


@dataclass(frozen=True)
class Group:
    """Sessions of one application and user that are in the same state and, if active, run the same statement."""

    application_name: str
    user: str
    state: str
    query: str
    count: int
    blocked: int
    youngest_seconds: float
    median_seconds: float

    @property
    def name(self) -> str:
        """How a person would call the application."""
        return f"{self.application_name or 'an unnamed application'} ({self.user})"


def largest_group(observation: Observation) -> Group | None:
    """The group with the most sessions; None where the reading has none that can be understood."""
    found = observation.reading.values.get("top_sessions")
    groups = [group for item in found if (group := _group(item)) is not None] if isinstance(found, list) else []
    return max(groups, key=lambda group: group.count, default=None)


def _group(item: JsonValue) -> Group | None:
    if not isinstance(item, dict):
        return None
    application, user, state, query = (item.get(name) for name in ("application_name", "user", "state", "query"))
    count, blocked, youngest, median = (number(item, name) for name in ("count", "blocked", "youngest_seconds", "median_seconds"))
    if not (isinstance(application, str) and isinstance(user, str) and isinstance(state, str) and isinstance(query, str)):
        return None
    if count is None or blocked is None or youngest is None or median is None:
        return None
    return Group(application, user, state, query, int(count), int(blocked), youngest, median)


def turns_over(group: Group, context: Context) -> bool:
    """Whether the sessions come and go, which is load and no leak: between two readings they have not grown older."""
    before = largest_group(context.incident.observation)
    times = [_measured_at(observation) for observation in (context.incident.observation, context.observation)]
    if group.median_seconds >= SETTLED_SECONDS or before is None or times[0] is None or times[1] is None:
        return False
    elapsed = (times[1] - times[0]).total_seconds()
    same = (before.application_name, before.user, before.state) == (group.application_name, group.user, group.state)
    return same and elapsed >= MIN_ELAPSED_SECONDS and group.median_seconds - before.median_seconds < elapsed / 2


def _measured_at(observation: Observation) -> datetime | None:
    """By the server's own clock, as the sessions' ages are."""
    text = observation.reading.values.get("measured_at")
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def age_below(seconds: float) -> float:
    """The greatest of the steps that is not above; the smallest at least."""
    return max((age for age in AGES_SECONDS if age <= seconds), default=AGES_SECONDS[0])
