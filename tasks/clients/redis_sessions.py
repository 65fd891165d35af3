"""Who is connected to a Redis server: the clients that a tool may end, and the groups they form."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pydantic import JsonValue

GROUPS = 5
NAME_LENGTH = 64
ORDINARY_FLAGS = frozenset("NrtTeU")
"""No replica or master link, nobody who subscribes, monitors, waits in a blocking command or is inside of MULTI (CLIENT LIST, flags)."""


@dataclass(frozen=True)
class Group:
    """What tells one application's clients from others': the name they gave themselves, their user, and the host they come from."""

    name: str
    user: str
    address: str


@dataclass(frozen=True)
class Session:
    """One client."""

    number: int
    group: Group
    idle_seconds: int
    command: str


def sessions_of(listed: Iterable[Mapping[str, Any]], own_id: int) -> list[Session]:
    """Ordinary clients of CLIENT LIST: none of the login that asks, unless that is the login of everybody."""
    rows = list(listed)
    own_user = next((row.get("user") for row in rows if int(row["id"]) == own_id), None)
    own = None if own_user == "default" else own_user
    return [
        Session(int(row["id"]), _group(row), int(row["idle"]), str(row.get("cmd", "")))
        for row in rows
        if int(row["id"]) != own_id and set(str(row["flags"])) <= ORDINARY_FLAGS and (own is None or row.get("user") != own)
    ]


def _group(row: Mapping[str, Any]) -> Group:
    # Names are the applications' own text: cut, and nothing unprintable.
    name = "".join(each if " " <= each <= "~" else "?" for each in str(row.get("name", ""))[:NAME_LENGTH])
    return Group(name, str(row.get("user", "")), str(row["addr"]).rpartition(":")[0])


def largest_groups(sessions: Iterable[Session]) -> list[JsonValue]:
    """The five largest groups, each with name, user, address, count, and how long its clients have been idle, in seconds."""
    idle: dict[Group, list[int]] = {}
    for session in sessions:
        idle.setdefault(session.group, []).append(session.idle_seconds)
    ordered = sorted(idle.items(), key=lambda item: -len(item[1]))[:GROUPS]
    return [
        {
            "name": group.name,
            "user": group.user,
            "address": group.address,
            "count": len(seconds),
            "median_idle_seconds": median(seconds),
            "longest_idle_seconds": max(seconds),
        }
        for group, seconds in ordered
    ]
