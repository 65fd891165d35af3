"""The runbooks for Redis' clients, settings, role, logins and files: what they advise, and what they leave to a person."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.runtimes import ProcessRuntime
from blocks.schema import Role
from tasks.core.declare import Remedy
from tasks.core.models import Context
from tasks.runbooks.redis_faults import (
    redis_broken_aof,
    redis_clients_used_up,
    redis_login,
    redis_replica,
    redis_saving,
    redis_script,
)
from tests.tasks.runbooks.test_redis_server import calls, context_of, resource

Book = Callable[[Context], Iterator[Remedy]]
RUNTIME = ProcessRuntime(control="/run/lab/control.sock", service="cache")
STOCK = {"name": "stock-sync", "user": "shop", "address": "10.0.0.7", "count": 110, "median_idle_seconds": 9, "longest_idle_seconds": 20}
KILL = ("redis_kill_clients", {"name": "stock-sync", "user": "shop", "address": "10.0.0.7", "min_idle_seconds": 1})
CROWDED = {"answers": "yes", "connected_clients": 195, "maxclients": 200, "clients_percent": 97.5}
DIR = {"now": "/mnt/gone", "declared": "/var/lib/redis"}
BOOKS = (redis_clients_used_up, redis_saving, redis_script, redis_replica, redis_login, redis_broken_aof)


@pytest.mark.parametrize(
    ("book", "values", "advised"),
    [
        (redis_clients_used_up, {**CROWDED, "top_clients": [STOCK]}, [KILL]),
        (redis_clients_used_up, {**CROWDED, "top_clients": [{**STOCK, "count": 99}]}, []),
        (redis_clients_used_up, CROWDED, []),
        (
            redis_clients_used_up,
            {**CROWDED, "top_clients": [STOCK], "drift": {"maxclients": {"now": "200", "declared": "1000"}}},
            [("redis_config_restore", {"settings": ["maxclients"]}), KILL],
        ),
        (redis_clients_used_up, {**CROWDED, "drift": {"maxclients": {"now": "200", "declared": "100"}}}, []),
        (redis_saving, {"answers": "yes", "rdb_last_bgsave_status": "err", "drift": {}}, []),
        (redis_saving, {"answers": "yes", "drift": {"dir": DIR}}, [("redis_config_restore", {"settings": ["dir"]})]),
        (
            redis_saving,
            {"answers": "yes", "drift": {"stop-writes-on-bgsave-error": {"now": "no", "declared": "yes"}, "dir": DIR, "maxclients": DIR}},
            [("redis_config_restore", {"settings": ["dir", "stop-writes-on-bgsave-error"]})],
        ),
        # The disk fails: that writes are refused is right.
        (redis_saving, {"answers": "yes", "drift": {"stop-writes-on-bgsave-error": {"now": "no", "declared": "yes"}}}, []),
        (redis_script, {"blocked_by_script": True}, [("redis_script_kill", {})]),
        (redis_replica, {"role": "replica", "master": "10.0.0.9:6379", "master_link_status": "down"}, [("redis_promote", {})]),
        (redis_replica, {"role": "replica", "master": "10.0.0.9:6379", "master_link_status": "up"}, []),
        (redis_login, {"application_login": "rejected"}, [("redis_realign_login", {})]),
        (redis_broken_aof, {"answers": "refused", "broken_aof": "a.aof"}, [("redis_repair_aof", {})]),
    ],
)
def test_what_is_advised(book: Book, values: dict[str, Any], advised: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls(list(book(context_of(values, resource(Role.CACHE, runtime=RUNTIME))))) == advised


def test_files_that_can_not_be_reached_are_left_to_a_person() -> None:
    assert list(redis_broken_aof(context_of({"answers": "refused", "broken_aof": "a.aof"}, resource(Role.CACHE)))) == []


ODD: st.SearchStrategy[Any] = (
    st.sampled_from([None, True, 0, -1, "", "x", [], [1], [{}], {}, {"maxclients": 1}, {"dir": {}}, {"maxclients": {"now": None}}])
    | st.floats()
)


@given(st.dictionaries(st.sampled_from(["drift", "top_clients", "maxclients", "master_link_status", "clients_percent"]), ODD))
def test_missing_or_odd_figures_make_no_runbook_fail(values: dict[str, Any]) -> None:
    context = context_of(values, resource(Role.CACHE, runtime=RUNTIME))

    for book in BOOKS:
        assert all(remedy.steps for remedy in book(context))
