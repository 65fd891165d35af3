"""A tool for the login of the application that uses Redis."""

import asyncio
from typing import Any

from pydantic import Field, JsonValue
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from blocks.schema import Kind, Risk
from tasks.clients.login import Login
from tasks.clients.redis_server import RedisClient, alone, open_redis, translated
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change
from tasks.core.redis_config import accepts, digest, user_rules

KEPT = "login"


class RealignLogin(ToolArgs):
    """In which direction."""

    back: bool = Field(False, description="Take an earlier call of this remediation back: the login as it was before.")


@tool(
    service=Kind.REDIS, risk=Risk.REVERSIBLE, undo="redis_realign_login", title="Realign the application's login", symptoms={"auth_refused"}
)
async def redis_realign_login(client: RedisClient, args: RealignLogin) -> Change:
    """Let the application log in again as both the inventory and the server's configuration file say.

    Adds the declared password and switches the user on (ACL SETUSER); other passwords and all permissions stay as they are. A user that
    is gone is made anew from the file's line. NotApplicable where the file and the inventory differ, for then nobody here knows which
    of the passwords is right. ToolFailed where the login is refused afterwards.
    """
    application = client.application
    if application is None:
        raise NotApplicable(f"{client.resource.name}: the inventory names no login for the application; add logins.application")
    async with alone(client) as own:
        before = await _user(client, own, application)
        if args.back:
            return await _take_back(client, own, application, before)
        rules = await _declared(client, application)
        if _is_accepted(before, application):
            raise NotApplicable(f"{client.resource.name}: the login of {application.username} is accepted already, nothing was changed")
        change = rules if before is None else ("on", f"#{digest(application.password)}")
        await _set_user(client, own, application, change)
        after = await _user(client, own, application)
    if not await _can_log_in(client, application):
        raise ToolFailed(f"{client.resource.name}: the login of {application.username} is still refused")
    client.kept[KEPT] = _way_back(before, application)
    return Change(before=_values(before, application), after=_values(after, application), undo={"back": True})


async def _declared(client: RedisClient, application: Login) -> tuple[str, ...]:
    """The rules of the file's line for the user, where they accept the inventory's password."""
    name = client.resource.name
    rules = user_rules(await asyncio.to_thread(client.configuration), application.username)
    if rules is None:
        raise NotApplicable(f"{name}: the configuration file has no line for the user {application.username}; a person decides")
    if not accepts(rules, application.password) or "on" not in rules:
        raise NotApplicable(f"{name}: configuration file and inventory differ about the login of {application.username}; a person decides")
    return rules


def _way_back(before: dict[str, Any] | None, application: Login) -> str:
    """The rules that bring a user's former state back; empty: there was none."""
    if before is None:
        return ""
    had = digest(application.password) in before["passwords"]
    return " ".join((*(() if before["enabled"] else ("off",)), *(() if had else (f"!{digest(application.password)}",))))


async def _take_back(client: RedisClient, own: Redis, application: Login, before: dict[str, Any] | None) -> Change:
    rules = client.kept.pop(KEPT, None)
    if rules is None:
        raise NotApplicable(f"{client.resource.name}: this remediation has not realigned a login, so there is nothing to take back")
    if rules:
        await _set_user(client, own, application, tuple(rules.split()))
    else:
        with translated(client.resource, sent=True):
            await own.acl_deluser(application.username)
    after = await _user(client, own, application)
    return Change(before=_values(before, application), after=_values(after, application))


async def _set_user(client: RedisClient, own: Redis, application: Login, rules: tuple[str, ...]) -> None:
    with translated(client.resource, sent=True):
        try:
            await own.execute_command("ACL SETUSER", application.username, *rules)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            # The server's words quote the rule, which may be a password.
            raise ToolFailed(f"{client.resource.name}: the server refused the rules for {application.username}") from error


async def _user(client: RedisClient, own: Redis, application: Login) -> dict[str, Any] | None:
    with translated(client.resource, sent=False):
        found: dict[str, Any] | None = await own.acl_getuser(application.username)
    return found


async def _can_log_in(client: RedisClient, application: Login) -> bool:
    host, _, port = client.resource.address.rpartition(":")
    visitor = open_redis(host, int(port), username=application.username, password=application.password)
    with translated(client.resource, sent=True):
        async with visitor:
            try:
                return bool(await visitor.ping())
            except AuthenticationError:
                return False


def _is_accepted(user: dict[str, Any] | None, application: Login) -> bool:
    return user is not None and user["enabled"] and ("nopass" in user["flags"] or digest(application.password) in user["passwords"])


def _values(user: dict[str, Any] | None, application: Login) -> dict[str, JsonValue]:
    return {
        "user": application.username,
        "exists": user is not None,
        "enabled": bool(user and user["enabled"]),
        "passwords": len(user["passwords"]) if user else 0,
        "accepted": _is_accepted(user, application),
    }
