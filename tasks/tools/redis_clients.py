"""Tools for the clients of Redis: who holds the connections, and ending those that should not."""

from collections.abc import Mapping

from pydantic import Field, JsonValue
from redis.asyncio import Redis

from blocks.schema import Kind, Risk
from tasks.clients.polling import poll
from tasks.clients.redis_server import RedisClient, alone, translated
from tasks.clients.redis_sessions import Group, Session, largest_groups, sessions_of
from tasks.core.declare import ToolArgs, measured, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.core.models import Change, Observation

GONE_SECONDS = 5.0
BECOME_IDLE_SECONDS = 2.0
EXAMPLES = 5

NAME = Field(None, max_length=64, description="Only clients with this name (CLIENT SETNAME); empty: those without one; null: any.")
USER = Field(None, max_length=64, description="Only clients of this user.")
ADDRESS = Field(None, max_length=64, description="Only clients from this host, without a port.")


class ListClients(ToolArgs):
    """Which clients are shown."""

    name: str | None = NAME
    user: str | None = USER
    address: str | None = ADDRESS
    min_idle_seconds: int = Field(0, ge=0, description="Only clients that have sent nothing for at least this long, in seconds.")


class KillClients(ToolArgs):
    """Which clients are ended."""

    min_idle_seconds: int = Field(ge=1, description="Only clients that have sent nothing for at least this long, in seconds.")
    name: str | None = NAME
    user: str | None = USER
    address: str | None = ADDRESS
    limit: int = Field(10_000, ge=1, le=100_000, description="Most clients to end, the longest idle first.")


def bystanders(args: Mapping[str, JsonValue], observation: Observation) -> str:
    """Whom ending clients hits beside those that the reading shows to be the trouble.

    That is one application, told by name, user and host, whose clients take at least half of maxclients. Anybody else's are for a
    person to end.
    """
    name, user, address = args.get("name"), args.get("user"), args.get("address")
    if name is None or user is None or address is None:
        return "clients of any name, user or host, where it names none: only those measured to be the trouble are ended without a person"
    told = f"{name or 'clients without a name'} ({user} from {address})"
    return "" if (name, user, address) in _holders_of_half(observation) else f"{told}, which is not measured to be the trouble"


def one_holds_half(observation: Observation) -> bool:
    """Whether one application has half of the clients, so that ending its idle ones helps."""
    return bool(_holders_of_half(observation))


def _holders_of_half(observation: Observation) -> set[tuple[JsonValue, JsonValue, JsonValue]]:
    values = observation.reading.values
    groups, most = values.get("top_clients"), values.get("maxclients")
    found: set[tuple[JsonValue, JsonValue, JsonValue]] = set()
    for group in groups if isinstance(groups, list) else ():
        count = group.get("count") if isinstance(group, dict) else None
        if isinstance(group, dict) and isinstance(count, int) and isinstance(most, int | float) and count >= most / 2:
            found.add((group.get("name"), group.get("user"), group.get("address")))
    return found


@tool(service=Kind.REDIS, risk=Risk.READ_ONLY, title="Look at the clients", fits=measured("clients_high", "clients_exhausted"))
async def redis_clients(client: RedisClient, args: ListClients) -> Change:
    """Show who is connected: the largest groups of clients, and those that have been idle for longest.

    Ordinary clients of CLIENT LIST: no replication, subscribers or blocked ones, and none of the monitor's own. Raises Unreachable.
    """
    with translated(client.resource, sent=False):
        async with client.redis.client() as own:
            sessions = await _sessions(own)
    matched = _matching(sessions, args, args.min_idle_seconds)
    longest: list[JsonValue] = [
        {"name": each.group.name, "user": each.group.user, "idle_seconds": each.idle_seconds, "last_command": each.command}
        for each in matched[:EXAMPLES]
    ]
    values: dict[str, JsonValue] = {"clients_matched": len(matched), "top_clients": largest_groups(matched), "longest_idle": longest}
    return Change(before=values, after=values)


# DISRUPTIVE: the clients get an error at their next command and have to connect again; nothing that is stored is lost.
@tool(
    service=Kind.REDIS,
    risk=Risk.DISRUPTIVE,
    title="End idle clients",
    timeout_seconds=15,
    symptoms={"clients_high", "clients_exhausted"},
    aim=bystanders,
    fits=one_holds_half,
)
async def redis_kill_clients(client: RedisClient, args: KillClients) -> Change:
    """End the idle clients of one name, user or host; never replication, subscribers or blocked ones.

    Reads back `clients_matched`, `clients_ended` and `connected_clients`. Waits up to 2 s for those that have not been idle for long
    enough yet. Raises NotApplicable when nothing matches, ToolFailed when clients remain after 5 s, Unreachable or OutcomeUnknown.
    """
    name = client.resource.name
    async with alone(client) as own:

        async def all_idle() -> bool | None:
            sessions = await _sessions(own)
            return len(_matching(sessions, args, args.min_idle_seconds)) == len(_matching(sessions, args, 0)) or None

        with translated(client.resource, sent=False):
            await poll(all_idle, seconds=BECOME_IDLE_SECONDS, every_seconds=0.1)
            matched = _matching(await _sessions(own), args, args.min_idle_seconds)[: args.limit]
            connected = (await own.info("clients"))["connected_clients"]
        if not matched:
            raise NotApplicable(f"{name}: no client matches, nothing was ended ({connected} clients are connected)")
        ended = {session.number for session in matched}
        with translated(client.resource, sent=True):
            # One by one: a pipeline would take a connection of the pool, and there may be none left.
            killed = sum([int(await own.client_kill_filter(_id=str(number))) for number in ended])
        after = await _after(client, own, ended)
    before: dict[str, JsonValue] = {"clients_matched": len(ended), "clients_ended": 0, "connected_clients": connected}
    return Change(before=before, after={"clients_matched": 0, "clients_ended": killed, "connected_clients": after})


async def _after(client: RedisClient, own: Redis, ended: set[int]) -> int:
    """How many clients are connected once the ended ones are gone."""

    async def gone() -> bool | None:
        return None if ended & {int(row["id"]) for row in await own.client_list()} else True

    name = client.resource.name
    try:
        with translated(client.resource, sent=False):
            if not await poll(gone, seconds=GONE_SECONDS):
                raise ToolFailed(f"{name}: some of {len(ended)} ended clients are still there after {GONE_SECONDS:g} s")
            return int((await own.info("clients"))["connected_clients"])
    except Unreachable as error:
        raise OutcomeUnknown(f"{name}: {len(ended)} client(s) were ended, then the server was lost: {error}") from error


async def _sessions(own: Redis) -> list[Session]:
    return sessions_of(await own.client_list(), await own.client_id())


def _matching(sessions: list[Session], args: ListClients | KillClients, min_idle_seconds: int) -> list[Session]:
    """The sessions that the arguments mean, the longest idle first."""
    found = [session for session in sessions if _is_meant(session.group, args) and session.idle_seconds >= min_idle_seconds]
    return sorted(found, key=lambda session: -session.idle_seconds)


def _is_meant(group: Group, args: ListClients | KillClients) -> bool:
    wanted = ((args.name, group.name), (args.user, group.user), (args.address, group.address))
    return all(one is None or one == found for one, found in wanted)
