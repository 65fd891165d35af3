"""Every fault of Redis on a real server, without flows: injected, shown by the probe, planned by rule, authorised, healed, taken back."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from compose.description import LabDescription
from tasks.clients.redis_aof import last_increment
from tasks.core.declare import NoArgs, Scenario
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Health
from tasks.core.redis_config import settings_of
from tests.tasks.theatre import CATALOG, Theatre, theatre_of

REMEDY: dict[str, list[str]] = {
    "redis_out_of_memory": ["redis_set_maxmemory"],
    "redis_clients_exhausted": ["redis_kill_clients"],
    "redis_maxclients_lowered": ["redis_config_restore"],
    "redis_blocking_script": ["redis_script_kill"],
    "redis_script_that_wrote": ["redis_script_kill"],  # refused by the server
    "redis_unwritable_dir": ["redis_config_restore"],
    "redis_accidental_replica": ["redis_promote"],
    "redis_password_changed": ["redis_realign_login"],
    "redis_password_rotated": ["redis_realign_login"],  # refused by the tool
    "redis_monitor_locked_out": [],
    "redis_down_behind_the_shop": ["redis_restart"],
    "redis_aof_cut_short": [],  # a person is asked
}
"""Fault -> the tools that rules try for it. Those that the shop's loads or untrusted text inject are tried through the scenario flow."""
FAULTS = [CATALOG.scenarios[name] for name in REMEDY]


@pytest.fixture
async def theatre(fresh_cache: LabDescription) -> AsyncIterator[Theatre]:
    async with theatre_of(fresh_cache, "shop-cache") as made:
        yield made


async def fingerprint(redis: Redis) -> str:
    """Checksum of what the shop keeps there."""
    found = {key: sorted((await redis.hgetall(key)).items()) for key in [key async for key in redis.scan_iter("cart:*")]}
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def test_every_fault_of_these_modules_is_tried_here() -> None:
    modules = {"tasks.scenarios.redis_use", "tasks.scenarios.redis_settings", "tasks.scenarios.redis_process"}
    assert {name for name, fault in CATALOG.scenarios.items() if fault.function.__module__ in modules} == set(REMEDY)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.name)
async def test_a_fault_is_seen_met_as_expected_and_taken_back(fault: Scenario, theatre: Theatre, fresh_cache: LabDescription) -> None:
    async with Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as second:
        for number in range(50):
            await second.hset(f"cart:customer-{number:03d}", mapping={"7": str(number)})
        data, settings = await fingerprint(second), await second.config_get("*")
    assert await theatre.perform(fault) == REMEDY[fault.name]
    async with Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as second:
        assert await fingerprint(second) == data
        changed = {name for name, value in (await second.config_get("*")).items() if value != settings[name]}
        assert changed <= {"maxmemory"}, "a remedy may have raised it; the lab's baseline brings it back"
        await second.config_set("maxmemory", str(settings["maxmemory"]))


async def test_a_broken_append_only_file_is_repaired_once_a_person_agrees(theatre: Theatre) -> None:
    generator = CATALOG.scenarios["redis_aof_cut_short"].function(theatre.stage)
    repair = CATALOG.tools["redis_repair_aof"].function
    with pytest.raises(NotApplicable, match="the server runs"):
        await repair(theatre.client, NoArgs())
    try:
        await anext(generator)
        before = await theatre.wait_for(frozenset({"aof_broken"}))
        path = last_increment(settings_of(theatre.client.configuration()))
        (base,) = path.parent.glob("*.base.rdb")
        good, broken = base.read_bytes(), path.read_bytes()
        base.write_bytes(bytes(len(good)))
        with pytest.raises(ToolFailed, match="does not start with the repaired file either"):
            await repair(theatre.client, NoArgs())
        assert path.read_bytes() == broken
        base.write_bytes(good)
        change = await repair(theatre.client, NoArgs())
        assert (await theatre.observe()).health is Health.HEALTHY
        assert before.reading.values["broken_aof"] == path.name
        assert change.before["state"] == "exited"
        sizes = [int(str(side["aof_bytes"])) for side in (change.after, change.before)]
        assert 0 < sizes[0] < sizes[1] == Path(str(change.after["broken_file"])).stat().st_size
        assert await theatre.client.redis.exists("page:offers") == 0, "its write was cut in half"
    finally:
        await generator.aclose()
    await theatre.wait_for(frozenset())
