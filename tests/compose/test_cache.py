"""The lab's Valkey: limits, logins, and a configuration that outlives a restart."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from compose.description import LabDescription

Call = Callable[..., httpx.Response]


@pytest.fixture
def monitor(fresh_cache: LabDescription) -> Iterator[Any]:
    with redis.Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True) as client:
        yield client


@pytest.fixture
def application(fresh_cache: LabDescription) -> Iterator[Any]:
    with redis.Redis.from_url(fresh_cache.cache.url("application"), decode_responses=True) as client:
        yield client


def fill(client: Any) -> None:
    """Write pages of 1 MiB, a quarter more than the limit."""
    for number in range(80):
        client.set(f"page:{number}", "x" * 1024 * 1024)


def test_a_full_cache_refuses_writes(monitor: Any, application: Any) -> None:
    assert monitor.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
    with pytest.raises(redis.OutOfMemoryError):
        fill(application)
    memory = monitor.info("memory")
    assert memory["maxmemory_policy"] == "noeviction"
    assert memory["used_memory"] > 0.9 * memory["maxmemory"]
    application.flushdb()


@pytest.mark.parametrize(("username", "password"), [(None, None), (None, "shop"), ("default", ""), ("shop", "shop"), ("evenkeel", "shop")])
def test_nobody_gets_in_without_a_password(fresh_cache: LabDescription, username: str | None, password: str | None) -> None:
    cache = fresh_cache.cache
    client = redis.Redis(host=cache.host, port=cache.port, username=username, password=password, retry=Retry(NoBackoff(), 0))
    with client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_the_application_can_not_change_the_server(application: Any) -> None:
    application.set("cart", "1")
    assert application.get("cart") == "1"
    application.delete("cart")
    for command in (("CONFIG", "SET", "maxmemory", "128mb"), ("SHUTDOWN", "NOSAVE"), ("ACL", "LIST"), ("CLIENT", "KILL", "TYPE", "normal")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            application.execute_command(*command)


def test_a_rewritten_configuration_and_the_data_outlive_a_restart(fresh_cache: LabDescription, monitor: Any, call: Call) -> None:
    monitor.set("kept", "yes")
    monitor.config_set("maxmemory", "96mb")
    monitor.config_rewrite()
    call(fresh_cache, "POST", "/services/cache/restart").raise_for_status()
    assert monitor.config_get("maxmemory") == {"maxmemory": str(96 * 1024 * 1024)}
    assert monitor.get("kept") == "yes"
    monitor.delete("kept")
    monitor.config_set("maxmemory", "64mb")
    monitor.config_rewrite()


def test_connections_are_limited(fresh_cache: LabDescription, monitor: Any) -> None:
    assert monitor.config_get("maxclients") == {"maxclients": "200"}
