"""A tool that brings settings of Redis back to what its configuration file says."""

import asyncio

from pydantic import Field, JsonValue
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from blocks.schema import Kind, Risk, Role
from tasks.clients.polling import poll
from tasks.clients.redis_server import RedisClient, alone, translated
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change
from tasks.core.redis_config import Restorable, drift, settings_of

SAVED_SECONDS = 20.0
WHERE_IT_SAVES = {"dir", "dbfilename"}
KEPT = "setting "
"""Prefix of what the client keeps for the undo."""


class RestoreSettings(ToolArgs):
    """Which settings, and in which direction."""

    settings: tuple[Restorable, ...] = Field(min_length=1, description="Settings to bring back to what the configuration file says.")
    back: bool = Field(False, description="Take an earlier call of this remediation back: the values from before it.")


@tool(
    service=Kind.REDIS,
    risk=Risk.REVERSIBLE,
    undo="redis_config_restore",
    title="Restore settings",
    timeout_seconds=40,
    symptoms={"persistence_failing", "write_refused", "clients_high", "clients_exhausted"},
)
async def redis_config_restore(client: RedisClient, args: RestoreSettings) -> Change:
    """Bring settings that were changed at run time back to what the server's configuration file says.

    After `dir` or `dbfilename` a BGSAVE has to succeed, or the value before is put back. No value comes from the arguments. NotApplicable
    where the file is not known or says nothing of a setting, or an eviction policy would drop data of a store. ToolFailed where the
    server refuses, as it does for `dir` unless enable-protected-configs allows for it.
    """
    async with alone(client) as own:
        wanted = _kept(client, args.settings) if args.back else await _declared(client, own, args.settings)
        before = await _running(client, own, tuple(wanted), sent=False)
        changing = {name: value for name, value in wanted.items() if before[name] != value}
        await _set(client, own, changing)
        if WHERE_IT_SAVES & changing.keys() and not args.back and not await _saves(client, own):
            await _set(client, own, {name: before[name] for name in changing if before[name]})
            raise ToolFailed(f"{client.resource.name}: the server can't save with {changing} either; the values before are back")
        after = await _running(client, own, tuple(wanted), sent=True)
    if args.back:
        return Change(before=dict(before), after=dict(after))
    client.kept |= {KEPT + name: before[name] for name in changing}
    # A directory that is gone has no name any more, so there is no way back to it.
    can_go_back = [name for name in args.settings if name in changing and (before[name] or name == "save")]
    undo: dict[str, JsonValue] | None = {"settings": [*can_go_back], "back": True} if can_go_back else None
    return Change(before=dict(before), after=dict(after), undo=undo)


async def _declared(client: RedisClient, own: Redis, settings: tuple[Restorable, ...]) -> dict[str, str]:
    """What the file says of the settings that are not in force as it says."""
    name = client.resource.name
    text = await asyncio.to_thread(client.configuration)
    declared = settings_of(text)
    unsaid = sorted(set(settings) - declared.keys())
    if unsaid:
        raise NotApplicable(f"{name}: the configuration file says nothing of {', '.join(unsaid)}; nothing was changed")
    policy = declared.get("maxmemory-policy", "")
    if "maxmemory-policy" in settings and policy != "noeviction" and client.resource.role is Role.STORE:
        raise NotApplicable(f"{name}: {policy} drops data, and the resource is a store; nothing was changed")
    if "dir" in settings and not declared["dir"].startswith("/"):
        raise NotApplicable(f"{name}: the configuration file has the relative dir {declared['dir']!r}; nothing was changed")
    drifted = drift(text, await _running(client, own, settings, sent=False))
    if not drifted:
        raise NotApplicable(f"{name}: {', '.join(settings)} is in force as the configuration file says; nothing was changed")
    return {one: values["declared"] for one, values in drifted.items()}


def _kept(client: RedisClient, settings: tuple[Restorable, ...]) -> dict[str, str]:
    missing = [name for name in settings if KEPT + name not in client.kept]
    if missing:
        raise NotApplicable(
            f"{client.resource.name}: this remediation has not changed {', '.join(missing)}, so there is nothing to take back"
        )
    return {name: client.kept.pop(KEPT + name) for name in settings}


async def _running(client: RedisClient, own: Redis, settings: tuple[str, ...], *, sent: bool) -> dict[str, str]:
    with translated(client.resource, sent=sent):
        return {str(name): str(value) for name, value in (await own.config_get(*settings)).items()}


async def _set(client: RedisClient, own: Redis, values: dict[str, str]) -> None:
    for name, value in values.items():
        with translated(client.resource, sent=True):
            await own.config_set(name, value)


async def _saves(client: RedisClient, own: Redis) -> bool:
    """Whether a snapshot reaches the disk now."""

    async def settled() -> bool | None:
        info = await own.info("persistence")
        return None if info["rdb_bgsave_in_progress"] else info["rdb_last_bgsave_status"] == "ok"

    with translated(client.resource, sent=True):
        await poll(settled, seconds=SAVED_SECONDS / 2)  # one under way may still write where it was
        try:
            await own.bgsave(schedule=False)
        except ResponseError:
            return False
        return bool(await poll(settled, seconds=SAVED_SECONDS / 2))
