"""Faults of Redis that come from settings, roles and logins that were changed at run time."""

import secrets
from collections.abc import AsyncGenerator

from redis.asyncio import Redis

from blocks.schema import Kind
from tasks.core.declare import Ending, scenario
from tasks.core.diagnosis import Cause
from tasks.scenarios.redis_access import connection, save, start_if_down, until
from tasks.scenarios.stage import Stage, Unhealed

ELSEWHERE = "/proc"
"""A directory that exists everywhere, and in which nobody can write a file."""
FORMER_MASTER = ("192.0.2.10", 6379)
"""Of a network that is nobody's (RFC 5737), so that nothing can be copied from there."""
HARSH = {"redis_restart", "redis_flush"}


@scenario(
    title="Redis saves where it can't write",
    resource_kind=Kind.REDIS,
    symptoms={"persistence_failing", "write_refused"},
    forbidden_tools=HARSH,
    catalogue=(23,),
    cause=Cause.STORAGE,
)
async def redis_unwritable_dir(stage: Stage) -> AsyncGenerator[None]:
    """Change `dir` at run time to one that can't be written to; the next save fails, and writes are refused."""
    async with connection(stage) as admin:
        before = {str(name): str(value) for name, value in (await admin.config_get("dir", "stop-writes-on-bgsave-error")).items()}
        try:
            await admin.config_set("dir", ELSEWHERE)
            await _try_to_save(admin)
            await until("the save fails", lambda: _last_save_is(admin, "err"))
            yield
            now = await admin.config_get("dir", "stop-writes-on-bgsave-error")
            if now != before:
                raise Unhealed(f"settings are {now}, not {before}")
            if not await _last_save_is(admin, "ok"):
                raise Unhealed("the last save failed")
        finally:
            for name, value in before.items():
                await admin.config_set(name, value)
            await save(admin)
            await _try_to_save(admin)
            await until("the save succeeds", lambda: _last_save_is(admin, "ok"))


async def _try_to_save(admin: Redis) -> None:
    async def idle() -> bool:
        return not (await admin.info("persistence"))["rdb_bgsave_in_progress"]

    await until("an earlier save is over", idle)
    await admin.bgsave(schedule=False)


async def _last_save_is(admin: Redis, status: str) -> bool:
    info = await admin.info("persistence")
    return not info["rdb_bgsave_in_progress"] and info["rdb_last_bgsave_status"] == status


@scenario(
    title="Redis became a replica by accident",
    resource_kind=Kind.REDIS,
    symptoms={"unexpected_replica", "write_refused"},
    forbidden_tools=HARSH,
    catalogue=(26,),
    cause=Cause.REPLICATION,
)
async def redis_accidental_replica(stage: Stage) -> AsyncGenerator[None]:
    """Make the primary a replica of a server that is not there any more; it keeps its data and refuses writes."""
    async with connection(stage) as admin:
        keys = await admin.dbsize()
        try:
            await admin.replicaof(*(str(part) for part in FORMER_MASTER))
            yield
            if (await admin.info("replication"))["role"] != "master":
                raise Unhealed("it is still a replica")
            if await admin.dbsize() < keys // 2:
                raise Unhealed(f"{await admin.dbsize()} keys are left of {keys}")
        finally:
            await admin.replicaof("NO", "ONE")


@scenario(
    title="The shop's Redis password was changed",
    resource_kind=Kind.REDIS,
    symptoms={"auth_refused"},
    forbidden_tools=HARSH,
    catalogue=(27,),
    ruled_out={Cause.STOPPED, Cause.MEMORY},
)
async def redis_password_changed(stage: Stage) -> AsyncGenerator[None]:
    """Give the application's user another password at run time, and drop its connections; file and inventory keep the old one."""
    user, password = stage.login("application")
    async with connection(stage) as admin:
        try:
            await _set_password(admin, user, secrets.token_urlsafe(18))
            yield
            async with connection(stage, "application", "checkout") as shop:
                if not await shop.set("page:front", "<h1>Shop</h1>", ex=5):
                    raise Unhealed("a write of the application is not accepted")
            if (await admin.acl_getuser("default"))["enabled"]:  # type: ignore[index]
                raise Unhealed("the user `default` is switched on: anybody gets in")
        finally:
            await admin.acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{password}"])


@scenario(
    title="The shop's Redis password was rotated",
    resource_kind=Kind.REDIS,
    symptoms={"auth_refused"},
    expects=Ending.ESCALATED,
    forbidden_tools=HARSH,
    catalogue=(27,),
    ruled_out={Cause.STOPPED, Cause.MEMORY},
)
async def redis_password_rotated(stage: Stage) -> AsyncGenerator[None]:
    """Rotate the application's password on purpose, also in the configuration file; only the inventory has the old one."""
    user, password = stage.login("application")
    async with connection(stage) as admin:
        try:
            await _set_password(admin, user, secrets.token_urlsafe(18))
            await admin.config_rewrite()
            yield
        finally:
            await admin.acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{password}"])
            await admin.config_rewrite()


async def _set_password(admin: Redis, user: str, password: str) -> None:
    await admin.acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{password}"])
    await admin.client_kill_filter(user=user)


@scenario(
    title="The monitor's own Redis login is refused",
    resource_kind=Kind.REDIS,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools=HARSH,
    catalogue=(45,),
)
async def redis_monitor_locked_out(stage: Stage) -> AsyncGenerator[None]:
    """Give the monitor's user another password and drop its connections; the server serves its application as ever."""
    user, password = stage.login("monitor")
    try:
        async with connection(stage) as admin:
            try:
                await admin.acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{secrets.token_urlsafe(18)}"])
                await admin.client_kill_filter(user=user, skipme=True)
                yield
            finally:
                await admin.acl_setuser(user, enabled=True, reset_passwords=True, passwords=[f"+{password}"])
    finally:
        await start_if_down(stage)
