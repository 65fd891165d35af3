"""The tools for Redis' clients, settings, role and logins, each against a real Valkey."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from blocks.schema import Role
from tasks.catalog import load_catalog
from tasks.clients.polling import poll
from tasks.clients.runtime import SupervisedProcess
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.core.models import Change, Step
from tasks.core.plans import parse_args
from tasks.tools.redis_aof import redis_repair_aof
from tasks.tools.redis_clients import KillClients, ListClients, redis_clients, redis_kill_clients
from tasks.tools.redis_login import RealignLogin, redis_realign_login
from tasks.tools.redis_replication import Promote, redis_promote
from tasks.tools.redis_settings import RestoreSettings, redis_config_restore
from tests.conftest import StartLab

if TYPE_CHECKING:
    from tasks.clients.redis_server import RedisClient
    from tests.tasks.tools.conftest import CacheUnderTest

TOOLS = load_catalog().tools
DIR = RestoreSettings(settings=("dir",))
ELSEWHERE = "/proc"
BACK_OFFICE, STOCK = "back-office", "stock-sync"


async def undo(client: RedisClient, tool: str, change: Change) -> Change:
    """Take a change back as the execution does: by its undo's arguments, read from a record."""
    assert change.undo is not None
    made: Change = await TOOLS[tool].function(
        client, parse_args(TOOLS[tool], Step(tool=tool, target="cache", args=change.undo, why="undo"))
    )
    return made


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("redis_clients", {}),
        ("redis_kill_clients", {"min_idle_seconds": 1}),
        ("redis_script_kill", {}),
        ("redis_config_restore", {"settings": ["dir"]}),
        ("redis_promote", {}),
        ("redis_realign_login", {}),
    ],
)
async def test_nothing_is_sent_to_a_server_that_is_gone(tool: str, args: dict[str, Any], cache: CacheUnderTest) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        client = cache.as_declared(address=f"127.0.0.1:{reserved.getsockname()[1]}")

        with pytest.raises(Unreachable, match="nothing was changed"):
            await TOOLS[tool].function(client, parse_args(TOOLS[tool], Step(tool=tool, target="cache", args=args, why="gone")))


async def test_only_the_idle_clients_of_that_name_end(cache: CacheUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tools.redis_clients.BECOME_IDLE_SECONDS", 0)
    async with AsyncExitStack() as opened:

        async def visitor(name: str) -> Redis:
            redis = Redis.from_url(cache.lab.cache.url("application"), client_name=name, decode_responses=True, protocol=2)
            await (await opened.enter_async_context(redis)).ping()
            return redis

        for name in (STOCK, STOCK, STOCK, BACK_OFFICE):
            await visitor(name)
        subscriber = (await visitor(STOCK)).pubsub()
        await subscriber.subscribe("orders")  # it is idle by its nature

        async def idle() -> Change | None:
            seen = await redis_clients(cache.as_declared(), ListClients(name=STOCK, min_idle_seconds=1))
            return seen if seen.after["clients_matched"] == 3 else None

        assert await poll(idle, seconds=20, every_seconds=0.2)
        largest = (await redis_clients(cache.as_declared(), ListClients())).after["top_clients"]
        assert isinstance(largest, list)
        assert isinstance(largest[0], dict)
        assert (largest[0]["name"], largest[0]["user"], largest[0]["address"], largest[0]["count"]) == (STOCK, "shop", "127.0.0.1", 3)

        change = await redis_kill_clients(cache.as_declared(), KillClients(name=STOCK, user="shop", min_idle_seconds=1))

        names = [client["name"] for client in await cache.second.client_list()]
        assert change.after["clients_ended"] == change.before["clients_matched"] == 3
        assert (names.count(STOCK), names.count(BACK_OFFICE)) == (1, 1)
        with pytest.raises(NotApplicable, match="no client matches"):
            await redis_kill_clients(cache.as_declared(), KillClients(name=STOCK, min_idle_seconds=1))
        with pytest.raises(NotApplicable, match="no client matches"):  # the monitor's own, who listen here
            await redis_kill_clients(cache.as_declared(), KillClients(user="evenkeel", min_idle_seconds=1))
        await subscriber.ping()
        await subscriber.aclose()  # type: ignore[no-untyped-call]


async def test_a_directory_is_restored_and_the_restoring_taken_back(cache: CacheUnderTest) -> None:
    client, declared = cache.as_declared(), str(cache.lab.cache.config_path.parent)
    await cache.second.config_set("dir", ELSEWHERE)
    try:
        change = await redis_config_restore(client, DIR)
        assert (change.before, change.after) == ({"dir": ELSEWHERE}, {"dir": declared})
        assert (await cache.second.config_get("dir"))["dir"] == declared
        assert (await cache.second.info("persistence"))["rdb_last_bgsave_status"] == "ok"

        assert (await undo(client, "redis_config_restore", change)).after == {"dir": ELSEWHERE}
        assert (await cache.second.config_get("dir"))["dir"] == ELSEWHERE
        with pytest.raises(NotApplicable, match="nothing to take back"):
            await redis_config_restore(client, RestoreSettings(settings=("dir",), back=True))
    finally:
        await cache.second.config_set("dir", declared)


async def test_a_directory_that_can_not_be_saved_to_either_is_not_kept(cache: CacheUnderTest) -> None:
    declared = cache.lab.cache.config_path.parent
    obstacle = declared / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    await cache.second.config_set("dir", ELSEWHERE)
    try:
        with pytest.raises(ToolFailed, match="can't save"):
            await redis_config_restore(cache.as_declared(), DIR)
        assert (await cache.second.config_get("dir"))["dir"] == ELSEWHERE
    finally:
        obstacle.rmdir()
        await cache.second.config_set("dir", str(declared))
        await cache.second.save()


async def test_settings_go_nowhere_but_to_what_the_file_says(cache: CacheUnderTest, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="is in force"):
        await redis_config_restore(cache.as_declared(), RestoreSettings(settings=("dir", "maxclients")))
    with pytest.raises(NotApplicable, match="add it"):
        await redis_config_restore(cache.as_declared(config_path=None), DIR)
    other = tmp_path / "valkey.conf"
    other.write_text('dir "./"\nmaxmemory-policy allkeys-lru\n', encoding="utf-8")
    elsewhere = cache.as_declared(config_path=str(other), role=Role.STORE)
    for setting, why in (("maxclients", "says nothing"), ("dir", "relative"), ("maxmemory-policy", "is a store")):
        with pytest.raises(NotApplicable, match=why):
            await redis_config_restore(elsewhere, RestoreSettings(settings=(setting,)))  # type: ignore[arg-type]
    assert (await cache.settings())[1] == "noeviction"


async def test_an_accidental_replica_is_promoted_and_made_one_again(cache: CacheUnderTest) -> None:
    client = cache.as_declared()
    await cache.fill(1)
    with pytest.raises(NotApplicable, match="is no replica"):
        await redis_promote(client, Promote())
    await cache.second.replicaof("192.0.2.10", "6379")
    try:
        with pytest.raises(NotApplicable, match="primary: true"):
            await redis_promote(cache.as_declared(primary=False), Promote())
        with pytest.raises(NotApplicable, match="nothing to take back"):
            await redis_promote(client, Promote(back=True))

        change = await redis_promote(client, Promote())
        assert change.before == {"role": "replica", "master": "192.0.2.10:6379", "keys": 64}
        assert (await cache.second.info("replication"))["role"] == "master"
        assert await cache.second.set("order", "1")

        await undo(client, "redis_promote", change)
        now = await cache.second.info("replication")
        assert (now["role"], now["master_host"], now["master_port"]) == ("slave", "192.0.2.10", 6379)
    finally:
        await cache.second.replicaof("NO", "ONE")
    assert await cache.second.dbsize() == 65


async def test_a_replica_whose_link_stands_is_left_to_a_person(cache: CacheUnderTest, start_partial_lab: StartLab) -> None:
    with start_partial_lab("cache") as other:
        async with Redis.from_url(other.cache.url("monitor"), protocol=2) as master:
            await master.config_set("repl-diskless-sync-delay", 0)
        await cache.second.config_set("primaryuser", other.cache.username)
        await cache.second.config_set("primaryauth", other.cache.password)
        await cache.second.replicaof(other.cache.host, str(other.cache.port))
        try:

            async def linked() -> bool | None:
                return (await cache.second.info("replication")).get("master_link_status") == "up" or None

            assert await poll(linked, seconds=30, every_seconds=0.1)
            with pytest.raises(NotApplicable, match="may be a failover"):
                await redis_promote(cache.as_declared(), Promote())
            assert (await cache.second.info("replication"))["role"] == "slave"
        finally:
            await cache.second.replicaof("NO", "ONE")
            await cache.second.config_set("primaryauth", "")
            await cache.second.config_set("primaryuser", "")


async def logs_in(cache: CacheUnderTest) -> bool:
    """Whether the shop gets in with the password that it has."""
    async with Redis.from_url(cache.lab.cache.url("application"), protocol=2) as shop:
        try:
            return bool(await shop.ping())
        except AuthenticationError:
            return False


@pytest.mark.parametrize("harm", [["resetpass", ">another-one"], ["off"], ["off", "resetpass"], None], ids=str)
async def test_the_login_is_realigned_and_the_realigning_taken_back(harm: list[str] | None, cache: CacheUnderTest) -> None:
    client, shop = cache.as_declared(), cache.lab.cache.logins["application"]
    before = await cache.second.acl_getuser(shop.username)
    if harm is None:
        await cache.second.acl_deluser(shop.username)
    else:
        await cache.second.execute_command("ACL SETUSER", shop.username, *harm)  # type: ignore[no-untyped-call]
    try:
        harmed = await cache.second.acl_getuser(shop.username)
        assert not await logs_in(cache)

        change = await redis_realign_login(client, RealignLogin())

        assert (change.before["accepted"], change.after["accepted"]) == (False, True)
        assert await logs_in(cache)
        assert shop.password not in change.model_dump_json()
        now = await cache.second.acl_getuser(shop.username)
        assert now is not None
        assert before is not None
        assert (now["categories"], now["keys"]) == (before["categories"], before["keys"])
        with pytest.raises(NotApplicable, match="accepted already"):
            await redis_realign_login(client, RealignLogin())

        await undo(client, "redis_realign_login", change)
        assert await cache.second.acl_getuser(shop.username) == harmed
        assert not await logs_in(cache)
    finally:
        rules = ["on", "resetpass", f">{shop.password}", "~*", "&*", "+@all", "-@admin", "+config|get"]
        await cache.second.execute_command("ACL SETUSER", shop.username, *rules)  # type: ignore[no-untyped-call]


async def test_a_login_of_which_file_and_inventory_differ_is_left_to_a_person(cache: CacheUnderTest, tmp_path: Path) -> None:
    other = tmp_path / "valkey.conf"
    for text, why in (("user shop on >another-one ~* +@all\n", "differ"), ("port 1\n", "no line for the user")):
        other.write_text(text, encoding="utf-8")
        with pytest.raises(NotApplicable, match=why):
            await redis_realign_login(cache.as_declared(config_path=str(other)), RealignLogin())
    with pytest.raises(NotApplicable, match=r"logins\.application"):
        await redis_realign_login(cache.client(), RealignLogin())
    with pytest.raises(NotApplicable, match="nothing to take back"):
        await redis_realign_login(cache.as_declared(), RealignLogin(back=True))


async def test_a_file_is_repaired_only_by_whoever_can_start_the_server(cache: CacheUnderTest) -> None:
    client = cache.as_declared()
    for runtime, error, why in ((cache.runtime, NotApplicable, "the server runs"), (None, NotApplicable, "add `runtime:`")):
        client.runtime = runtime
        with pytest.raises(error, match=why):
            await redis_repair_aof(client, NoArgs())
    client.runtime = SupervisedProcess(str(cache.lab.directory / "nobody"), "cache")
    with pytest.raises(Unreachable, match="no supervisor"):
        await redis_repair_aof(client, NoArgs())
