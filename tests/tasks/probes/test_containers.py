"""Real containers as the probe sees them, from the streams of a real engine."""

import asyncio
import re
from pathlib import Path

import pytest

from blocks.runtimes import LOCAL_ENGINE
from blocks.schema import Thresholds
from tasks.clients import container_watch
from tasks.clients.containers import ContainerClient
from tasks.core.errors import ProbeBroken
from tasks.core.models import Reading
from tasks.probes.containers import judge, measure
from tests.tasks.engine import Line, client_of, container, docker, network, until

pytestmark = pytest.mark.docker
BUSY = ("sh", "-c", "while :; do :; done")
HUNGRY = ("sh", "-c", "perl -e '$x = q(x) x 2e8; sleep 3600' & sleep 3600")
ANSWERS = "$s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5) or die; while ($c = $s->accept) { print $c 'HTTP/1.0 200'; close $c }"
SERVER = ("perl", "-MIO::Socket::INET", "-e", ANSWERS)


async def seen(client: ContainerClient, *symptoms: str) -> Reading:
    """The reading once just these symptoms show."""
    readings: list[Reading] = []

    async def shows() -> bool:
        try:
            readings.append(await measure(client, client.resource))
        except ProbeBroken:
            return False
        return tuple(finding.symptom for finding in judge(readings[-1], client.resource)) == symptoms

    await until(shows)
    return readings[-1]


async def test_the_states_of_one_container_are_told_by_its_engine_at_once() -> None:
    with network() as net, container("--network", net, "--memory", "64m", "--cpus", "0.5") as name:
        async with client_of(name) as client:
            values = (await seen(client)).values
            assert (values["state"], values["health"], values["networks"], values["image"]) == (
                "running",
                None,
                [net],
                "debian:bookworm-slim",
            )
            assert (values["memory_limit_mib"], values["cpus_limit"]) == (64, 0.5)
            await until(lambda: _has(client, "cpu_percent", "memory_percent", "throttled_percent"))
            docker("pause", name)
            await seen(client, "paused")
            docker("unpause", name)
            docker("network", "disconnect", net, name)
            assert (await seen(client, "network_detached")).values["networks_missing"] == [net]
            docker("network", "connect", net, name)
            docker("kill", name)
            assert (await seen(client, "container_down")).values["exit_code"] == 137
            docker("start", name)
            await seen(client)
            docker("rm", "--force", name)
            await seen(client, "missing")


async def _has(client: ContainerClient, *values: str) -> bool:
    reading = await measure(client, client.resource)
    return all(isinstance(reading.values[value], float) for value in values)


@pytest.mark.slow
async def test_a_container_at_its_limits_and_one_that_was_killed_for_memory() -> None:
    with (
        container("--cpus", "0.05", "--restart", "no", command=BUSY) as busy,
        container("--memory", "32m", "--memory-swap", "32m", command=HUNGRY) as hungry,
    ):
        async with client_of(busy) as client, client_of(hungry) as other:
            values = (await seen(client, "cpu_throttled", "cpu_high")).values
            assert isinstance(values["throttled_percent"], float)
            assert values["throttled_percent"] > 50
            docker("update", "--cpus", "1", busy)
            await until(lambda: _has_less(client, "throttled_percent", 50))
            assert (await seen(other, "oom_killed")).values["oom_kills"] == 1
            docker("update", "--memory", "64m", "--memory-swap", "64m", hungry)
            assert (await seen(other)).values["memory_limit_mib"] == 64


async def _has_less(client: ContainerClient, value: str, threshold: float) -> bool:
    found = (await measure(client, client.resource)).values[value]
    return isinstance(found, float) and found < threshold


async def test_one_that_falls_again_and_again_and_one_that_is_meant_to_be_down() -> None:
    with (
        container("--restart", "always", command=("sh", "-c", "exit 3")) as falling,
        container("--label", "evenkeel.maintenance=new disk", command=("true",)) as resting,
    ):
        async with client_of(falling, thresholds=Thresholds(restarts_per_hour=2)) as client, client_of(resting) as other:
            values = (await seen(client, "crash_looping")).values
            assert isinstance(values["exit_codes"], list)
            assert set(values["exit_codes"]) == {3}
            await until(lambda: _has_restarted(client))
            await until(lambda: _is(other, state="exited"))
            assert (await seen(other)).values["maintenance"] == "new disk"


async def _has_restarted(client: ContainerClient) -> bool:
    count = (await measure(client, client.resource)).values["restarts_last_hour"]
    return isinstance(count, int) and count >= 2


async def _is(client: ContainerClient, **wanted: object) -> bool:
    values = (await measure(client, client.resource)).values
    return all(values[name] == value for name, value in wanted.items())


@pytest.mark.slow
async def test_a_health_check_that_fails_is_held_against_the_ports() -> None:
    check = ("--health-cmd", "echo no route to port 9; false", "--health-interval", "1s", "--health-retries", "1")
    with (
        network() as net,
        container("--network", net, "--expose", "8000", *check, command=SERVER) as fine,
        container("--network", net, "--expose", "8000", *check) as silent,
    ):
        async with client_of(fine) as client, client_of(silent) as other:
            values = (await seen(client, "unhealthy")).values
            assert (values["ports_answering"], values["health_output"]) == ("1 of 1", "no route to port 9")
            assert (await seen(other, "unhealthy")).values["ports_answering"] == "0 of 1"
            docker("pause", fine)
            await seen(client, "paused")


async def test_an_engine_that_is_gone_or_hangs_makes_the_health_unknown_and_says_how_old_the_last_word_is(
    tmp_path: Path,
) -> None:
    line = Line(str(tmp_path / "engine.sock"))
    with container() as name:
        async with client_of(name, line.url) as client:
            with pytest.raises(ProbeBroken, match="no engine answers at unix://"):
                await measure(client, client.resource)
            await line.connect()
            await until(lambda: _answers(client))
            line.hang()
            with pytest.raises(ProbeBroken, match=r"did not answer within 1\.5 s"):
                await measure(client, client.resource)
            await line.cut()
            await until(lambda: _says(client, r"what is known is \d+ s old"))
            docker("kill", name)
            await line.connect()
            # What happened meanwhile is seen, and nothing from before is taken for the present.
            await seen(client, "container_down")
        await line.cut()


async def _answers(client: ContainerClient) -> bool:
    try:
        await measure(client, client.resource)
    except ProbeBroken:
        return False
    return True


async def _says(client: ContainerClient, text: str) -> bool:
    try:
        await measure(client, client.resource)
    except ProbeBroken as error:
        return re.search(text, str(error)) is not None
    return False


async def test_clients_of_an_engine_share_a_watch_that_ends_with_the_last_of_them() -> None:
    with container() as name:
        async with client_of(name) as first:
            async with client_of(name) as second:
                readings = await asyncio.gather(*(measure(client, client.resource) for client in (first, second)))
                assert first.watch is second.watch
                assert readings[0].values["state"] == readings[1].values["state"] == "running"
            assert (await measure(first, first.resource)).values["state"] == "running"
            mine = [task for task in asyncio.all_tasks() if "EngineWatch" in repr(task)]
            assert mine
        assert all(task.done() for task in mine)
        assert LOCAL_ENGINE not in container_watch._held.get(asyncio.get_running_loop(), {})
