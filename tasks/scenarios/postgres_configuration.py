"""Faults of PostgreSQL that somebody's change brings about: settings, rights, passwords."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from blocks.schema import Kind
from tasks.clients.postgres_auto_conf import auto_conf, put_lines
from tasks.core.declare import Ending, scenario
from tasks.core.diagnosis import Cause
from tasks.core.errors import EvenkeelError
from tasks.scenarios.postgres_sessions import POLL_SECONDS, answers, as_admin, brought_up, require_no_restart, session, start_of, value
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

RESTART = {"postgres_restart", "postgres_scale_connections"}
START_SECONDS = 10.0
LOG_LINES = 3
PRELOADED = "shared_preload_libraries"
# Rights are compared, not their text: an owner's own stand nowhere until one of them is taken away.
RIGHTS = """
    SELECT string_agg(right_of::text, ' ' ORDER BY right_of::text)
    FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) AS right_of WHERE oid = 'products'::regclass
"""


@scenario(
    title="PostgreSQL takes no writes",
    resource_kind=Kind.POSTGRES,
    symptoms={"read_only"},
    forbidden_tools=RESTART,
    catalogue=(17,),
)
async def postgres_made_read_only(stage: Stage) -> AsyncGenerator[None]:
    """Set default_transaction_read_only for the whole server, and load it."""
    started = await start_of(stage)
    try:
        await as_admin(stage, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        yield
        async with session(stage, "shop-orders") as shop:
            try:
                await shop.execute("BEGIN")
                await shop.execute("UPDATE products SET name = name WHERE id = 1")
                await shop.execute("ROLLBACK")
            except psycopg.Error as error:
                raise Unhealed(f"the shop can't write: {error}") from error
        await require_no_restart(stage, started)
    finally:
        await brought_up(stage)
        await as_admin(stage, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@scenario(
    title="The shop may not read its products any more",
    resource_kind=Kind.POSTGRES,
    symptoms={"privilege_missing"},
    forbidden_tools=RESTART,
    catalogue=(18,),
)
async def postgres_right_revoked(stage: Stage) -> AsyncGenerator[None]:
    """Revoke SELECT on the products from the shop's role."""
    role = Identifier(stage.login("application")[0])
    rights = await value(stage, RIGHTS)
    try:
        await as_admin(stage, SQL("REVOKE SELECT ON products FROM {}").format(role))
        yield
        now = await value(stage, RIGHTS)
        if now != rights:
            raise Unhealed(f"the rights to the products were {rights}, and are {now}")
    finally:
        await brought_up(stage)
        await as_admin(
            stage,
            "REVOKE ALL ON products FROM PUBLIC",
            SQL("GRANT ALL ON products TO {}").format(role),
        )


@scenario(
    title="PostgreSQL does not start with its settings",
    resource_kind=Kind.POSTGRES,
    symptoms={"down"},
    also={"shop-app"},
    catalogue=(19,),
    cause=Cause.CONFIGURATION,
)
async def postgres_library_mistyped(stage: Stage) -> AsyncGenerator[None]:
    """Preload a library whose name is mistyped, by ALTER SYSTEM, and restart."""
    file = auto_conf(stage.client())  # without it there is no way back
    system = await value(stage, "SELECT system_identifier FROM pg_control_system()")
    try:
        await as_admin(stage, "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statement'")
        # It is the start that fails, which is what is wanted.
        with suppress(EvenkeelError):
            await stage.runtime().restart()
        await _until_failed(stage)
        if await answers(stage):
            raise InjectionFailedError(f"{stage.resource.name}: runs, although a library that it preloads does not exist")
        yield
        if await value(stage, "SELECT system_identifier FROM pg_control_system()") != system:
            raise Unhealed("the data directory was made anew")
        if await value(stage, "SELECT current_setting('max_connections')") != "100":
            raise Unhealed("other settings were changed too")
    finally:
        if not await answers(stage):
            async with file.locked():
                put_lines(file, PRELOADED, [])
        await brought_up(stage)
        await as_admin(stage, "ALTER SYSTEM RESET shared_preload_libraries")


async def _until_failed(stage: Stage) -> None:
    """Wait until the server has tried to start: what runs it may not wait for that."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while not any("FATAL" in line for line in await stage.runtime().log(LOG_LINES)):
        if asyncio.get_running_loop().time() > deadline:
            raise InjectionFailedError(f"{stage.resource.name}: its log tells of no failed start within {START_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)


@scenario(
    title="The shop's password was changed, and nobody told the shop",
    resource_kind=Kind.POSTGRES,
    symptoms={"application_refused"},
    expects=Ending.ESCALATED,
    forbidden_tools={*RESTART, "postgres_grant"},
    catalogue=(20,),
)
async def postgres_password_rotated(stage: Stage) -> AsyncGenerator[None]:
    """Give the shop's role another password."""
    user, password = stage.login("application")
    change = SQL("ALTER ROLE {} PASSWORD {}")
    try:
        await as_admin(stage, change.format(Identifier(user), Literal(secrets.token_urlsafe(18))))
        yield
    finally:
        await brought_up(stage)
        await as_admin(stage, change.format(Identifier(user), Literal(password)))
