"""What has to be true after each section of the documents, by questions that its commands do not ask."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from compose.description import LabError
from tests.first_hour.machine import HOME, READER, Machine, Terminal, until

RECORDS = f"{HOME}/evenkeel/.evenkeel/records.db"
SERVICE_RECORDS = "/var/lib/evenkeel/records.db"
WAIT_SECONDS = 240.0
MIB = 2**20

READ_FIXES = """
import json, pathlib, sqlite3, sys
query = "SELECT resource, verdict, message, (SELECT count(*) FROM evenkeel_steps WHERE fix_id = id) FROM evenkeel_fixes ORDER BY opened_at"
found = []
if pathlib.Path(sys.argv[1]).exists():
    connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=20)
    found = connection.execute(query).fetchall()
print(json.dumps(found))
"""
COUNT_OF_THE_READER = """
import json, os, pathlib, pwd, sys
uid, found = pwd.getpwnam(sys.argv[1]).pw_uid, 0
for place in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        found += place.stat().st_uid == uid and b"prefect" in (place / "cmdline").read_bytes()
    except OSError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Sight:
    """What a look has to go by."""

    machine: Machine
    terminal: Terminal
    printed: str
    """What the section's commands printed."""

    async def maxmemory_mib(self) -> int:
        """The limit, as Redis itself tells its owner."""
        return int((await self.machine.root("redis-cli", "CONFIG", "GET", "maxmemory")).split()[1]) // MIB

    async def fixes(self, path: str = RECORDS) -> list[tuple[str, str | None, str, int]]:
        """Resource, verdict, message and number of steps of each fix, the oldest first."""
        return [tuple(row) for row in await self.machine.python(READ_FIXES, path)]

    async def ended(self, count: int, path: str = RECORDS) -> tuple[str, str | None, str, int]:
        """The last of so many fixes, once it has ended."""

        async def look() -> list[tuple[str, str | None, str, int]]:
            found = await self.fixes(path)
            return found if len(found) >= count and found[-1][1] is not None else []

        found = await until(f"{count} fixes have ended", look, WAIT_SECONDS)
        expect(len(found), count)
        return found[-1]

    async def artifact(self, key: str, login: str = "") -> tuple[str, str]:
        """Description and data of an artifact as it is now; empty where there is none yet."""
        status, text = await self.machine.api(f"/api/artifacts/{key}/latest", login=login)
        if status != 200:
            return "", ""
        told = json.loads(text)
        return told["description"] or "", told["data"]

    async def all_healthy(self, login: str = "") -> None:
        """Wait until the status table shows three healthy resources."""

        async def look() -> bool:
            description, data = await self.artifact("status-mine", login)
            return "3 of 3 resources are healthy" in description and len(json.loads(data)) == 3

        await until("three resources are healthy in the artifact status-mine", look, WAIT_SECONDS)


Look = Callable[[Sight], Awaitable[None]]


def expect(seen: object, wanted: object) -> None:
    """LabError with both where they differ."""
    if seen != wanted:
        raise LabError(f"seen: {seen!r}\nexpected: {wanted!r}")


def expect_in(part: str, whole: str) -> None:
    """LabError with both where the one is not in the other."""
    if part not in whole:
        raise LabError(f"{part!r} is not in:\n{whole}")


async def installed(sight: Sight) -> None:
    """The command is there, and Debian's own servers run."""
    await sight.machine.root("test", "-x", f"{HOME}/evenkeel/.venv/bin/prefect")
    await sight.machine.root("systemctl", "is-active", "postgresql@15-main", "redis-server", "nginx")


async def server_answers(sight: Sight) -> None:
    """The API answers, the UI is served, and both on this machine alone."""
    expect(await sight.machine.api("/api/health"), (200, "true"))
    status, page = await sight.machine.api("/")
    expect((status, "<html" in page), (200, True))
    await _listens_on_loopback_only(sight.machine, port=4200)


async def _listens_on_loopback_only(machine: Machine, port: int) -> None:
    tables = (await machine.root("cat", "/proc/net/tcp", "/proc/net/tcp6")).splitlines()
    addresses = {fields[1] for fields in map(str.split, tables) if len(fields) > 3 and fields[3] == "0A"}
    expect({address for address in addresses if int(address.rpartition(":")[2], 16) == port}, {f"0100007F:{port:04X}"})


async def logins_are_there(sight: Sight) -> None:
    """The roles are no more than was said; Redis keeps its user and its limit over a restart; nobody else reads the passwords."""
    query = (
        "SELECT rolname, rolsuper, pg_has_role(rolname, 'pg_monitor', 'USAGE') FROM pg_roles "
        "WHERE rolname IN ('evenkeel', 'shop') ORDER BY rolname"
    )
    told = await sight.machine.root("runuser", "-u", "postgres", "--", "psql", "-AtF", " ", "-d", "shop", "-c", query)
    expect(told.splitlines(), ["evenkeel f t", "shop f f"])
    expect(sight.printed.split()[-3:], ["OK", "OK", "OK"])
    await sight.machine.root("systemctl", "restart", "redis-server")
    expect_in("user evenkeel on", await sight.machine.root("redis-cli", "ACL", "LIST"))
    expect(await sight.maxmemory_mib(), 64)
    expect((await sight.machine.root("stat", "-c", "%a %U", f"{HOME}/evenkeel/passwords.env")).split(), ["600", READER])


async def registered(sight: Sight) -> None:
    """The blocks are saved; no password stands in the inventory or in what the API tells everybody."""
    passwords = re.findall(r"=(\w{32})$", await sight.machine.root("cat", f"{HOME}/evenkeel/passwords.env"), re.MULTILINE)
    _, blocks = await sight.machine.api("/api/block_documents/filter", {})
    names = {block["name"] for block in json.loads(blocks)}
    expect({"mine", "mine-my-cache-monitor", "mine-my-db-monitor", "mine-my-db-application"} - names, set())
    shown = blocks + sight.printed + await sight.machine.root("cat", f"{HOME}/evenkeel/inventory.yaml")
    expect(len(passwords), 3)
    expect([password for password in passwords if password in shown], [])


async def watched(sight: Sight) -> None:
    """All are healthy, and nothing was opened."""
    await sight.all_healthy()
    expect(await sight.fixes(), [])


async def proposed(sight: Sight) -> None:
    """The fix says what it would have done, and did nothing: the limit is as it was."""
    resource, verdict, message, steps = await sight.ended(1)
    expect((resource, verdict, steps), ("my-cache", "Escalated", 0))
    expect_in("redis_set_maxmemory", message)
    expect_in("propose", message)
    expect_in("redis_set_maxmemory", (await sight.artifact("planning-my-cache"))[1])
    expect(await sight.maxmemory_mib(), 64)


async def asked(sight: Sight) -> None:
    """A run waits for a person; approved, as the UI's form does it, the limit is raised and the fix is complete."""

    async def waiting() -> str:
        query = {"flow_runs": {"state": {"name": {"any_": ["Suspended"]}}}}
        runs = json.loads((await sight.machine.api("/api/flow_runs/filter", query))[1])
        return next((run["id"] for run in runs if run["name"] == "Approve redis_set_maxmemory on my-cache?"), "")

    run_id = await until("a suspended run `Approve redis_set_maxmemory on my-cache?`", waiting, WAIT_SECONDS)
    expect(await sight.maxmemory_mib(), 64)
    _, told = await sight.machine.api(f"/api/flow_runs/{run_id}/resume", {"run_input": {"answer": "approve", "comment": "go on"}})
    expect_in('"ACCEPT"', told)
    resource, verdict, _, steps = await sight.ended(2)
    expect((resource, verdict, steps, await sight.maxmemory_mib()), ("my-cache", "Completed", 1, 96))


async def healed(sight: Sight) -> None:
    """Nobody was asked, and the limit is raised again."""
    resource, verdict, _, steps = await sight.ended(3)
    expect((resource, verdict, steps, await sight.maxmemory_mib()), ("my-cache", "Completed", 1, 144))
    await sight.all_healthy()


async def told_of(sight: Sight) -> None:
    """The commands show the limit and all three fixes, and so does the artifact."""
    expect_in(str(144 * MIB), sight.printed)
    expect_in("3 fix(es)", sight.printed)
    expect(len(json.loads((await sight.artifact("fixes-mine"))[1])), 3)


async def ended(sight: Sight) -> None:
    """Nothing of it runs any more."""

    async def gone() -> bool:
        return int(await sight.machine.python(COUNT_OF_THE_READER, READER)) == 0

    await until("no process of Prefect is left", gone, 60)


async def served(sight: Sight) -> None:
    """The units are flawless and at work, a secret guards the API, systemd brings a killed worker back, and a fault is healed."""
    units = ["evenkeel-server.service", "evenkeel-worker.service"]
    expect(await sight.machine.root("sh", "-c", f"systemd-analyze verify {' '.join(units)} 2>&1"), "")
    login = re.findall(r"^PREFECT_API_AUTH_STRING=(.+)$", await sight.machine.root("cat", "/etc/evenkeel/worker.env"), re.MULTILINE)[0]
    expect((await sight.machine.api("/api/flow_runs/count", {}))[0], 401)
    expect_in("<html", (await sight.machine.api("/"))[1])
    await _listens_on_loopback_only(sight.machine, port=4200)
    await sight.all_healthy(login)

    pid = await _main_pid(sight.machine)
    await sight.machine.root("sh", "-c", f"kill -KILL {pid}")  # the program of that name is not installed

    async def another() -> bool:
        return await _main_pid(sight.machine) not in {"0", pid}

    await until("systemd has started another worker", another, 60)
    await sight.terminal.enter("fill", 30)
    resource, verdict, _, steps = await sight.ended(1, SERVICE_RECORDS)
    expect((resource, verdict, steps, await sight.maxmemory_mib()), ("my-cache", "Completed", 1, 216))


async def _main_pid(machine: Machine) -> str:
    return (await machine.root("systemctl", "show", "--property=MainPID", "--value", "evenkeel-worker")).strip()


async def nothing(_: Sight) -> None:
    """There is nothing to look at: it has no commands."""


IN_THE_FIRST_HOUR: Sequence[Look] = (
    installed, server_answers, logins_are_there, registered, watched, proposed, asked, healed, told_of, ended
)  # fmt: skip
AS_A_SERVICE = {"systemd": served}
