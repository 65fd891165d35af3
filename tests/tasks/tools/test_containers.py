"""The tools for a container's state on real ones; what they did is read by Docker's own command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.probes.containers import judge, measure
from tasks.tools.containers import (
    Network,
    docker_connect_network,
    docker_disconnect_network,
    docker_restart,
    docker_start,
    docker_unpause,
)
from tasks.tools.containers_limits import Scale, UpdateLimits, docker_scale, docker_update_limits
from tasks.tools.containers_reading import ReadLogs, docker_inspect, docker_logs, docker_stats
from tests.tasks.engine import client_of, container, docker, inspected, network, until

pytestmark = pytest.mark.docker
COMPOSE = ("com.docker.compose.project=evenkeel-containers-shop", "com.docker.compose.service=app")


@pytest.fixture(scope="module")
def net() -> Iterator[str]:
    """A network of this module's own."""
    with network() as name:
        yield name


@pytest.fixture(scope="module")
def shop(net: str) -> Iterator[str]:
    """One container of compose's making, as its labels say; each test leaves it running and connected."""
    labels = [part for label in COMPOSE for part in ("--label", label)]
    with container("--network", net, "--network-alias", "app", "--network-alias", "shop", *labels) as name:
        yield name


def state(name: str) -> dict[str, Any]:
    found: dict[str, Any] = inspected(name)["State"]
    return found


async def test_a_restart_gives_a_new_process_and_refuses_what_does_not_run(shop: str) -> None:
    pid = state(shop)["Pid"]
    async with client_of(shop) as client:
        change = await docker_restart(client, NoArgs())
        assert change.before["started_at"] != change.after["started_at"] == state(shop)["StartedAt"]
        assert state(shop)["Pid"] != pid
        docker("pause", shop)
        with pytest.raises(NotApplicable, match="it is paused; docker_unpause is for that"):
            await docker_restart(client, NoArgs())
        assert state(shop)["Status"] == "paused"
        docker("unpause", shop)
        docker("kill", shop)
        with pytest.raises(NotApplicable, match="it is exited; docker_start is for that"):
            await docker_restart(client, NoArgs())
        assert state(shop)["Status"] == "exited"
        docker("start", shop)


async def test_what_is_down_is_started_and_what_runs_is_left_alone(shop: str) -> None:
    docker("kill", shop)
    async with client_of(shop) as client:
        change = await docker_start(client, NoArgs())
        assert (change.before["state"], change.before["exit_code"], change.after["state"]) == ("exited", 137, "running")
        assert state(shop)["Status"] == "running"
        started_at = state(shop)["StartedAt"]
        with pytest.raises(NotApplicable, match="it is running, not down"):
            await docker_start(client, NoArgs())
        assert state(shop)["StartedAt"] == started_at


async def test_a_port_that_another_has_is_why_a_start_fails(net: str) -> None:
    with container("--network", net, "--publish", "127.0.0.1::8000") as squatter:
        port = docker("port", squatter, "8000").rpartition(":")[2]
        with container("--network", net, "--publish", f"127.0.0.1:{port}:8000", start=False) as name:
            async with client_of(name) as client:
                await client.watched(sampled=False)
                with pytest.raises(ToolFailed, match="port is already allocated"):
                    await docker_start(client, NoArgs())
                assert state(name)["Status"] != "running"

                async def is_known() -> bool:
                    found = judge(await measure(client, client.resource), client.resource)
                    return [finding.symptom for finding in found] == ["port_conflict"]

                await until(is_known)


async def test_what_is_paused_goes_on_with_the_same_process(shop: str) -> None:
    pid = state(shop)["Pid"]
    async with client_of(shop) as client:
        with pytest.raises(NotApplicable, match="it is running, not paused"):
            await docker_unpause(client, NoArgs())
        docker("pause", shop)
        change = await docker_unpause(client, NoArgs())
    assert (change.before["state"], change.after["state"]) == ("paused", "running")
    assert (state(shop)["Status"], state(shop)["Pid"]) == ("running", pid)


async def test_a_network_is_joined_under_the_old_names_and_left_again(shop: str, net: str) -> None:
    async with client_of(shop) as client:
        await client.watched(sampled=False)
        with pytest.raises(NotApplicable, match="it is in the network"):
            await docker_connect_network(client, Network(network=net))
        docker("network", "disconnect", net, shop)
        with pytest.raises(NotApplicable, match=f"it was never in the network bridge; it was in {net}"):
            await docker_connect_network(client, Network(network="bridge"))
        change = await docker_connect_network(client, Network(network=net))
        joined = inspected(shop)["NetworkSettings"]["Networks"][net]
        assert {"app", "shop"} <= set(joined["Aliases"])
        assert change.after["networks"] == {net: ["app", "shop"]}
        assert change.undo == {"network": net}
        assert (await docker_disconnect_network(client, Network.model_validate(change.undo))).after["networks"] == {}
        assert inspected(shop)["NetworkSettings"]["Networks"] == {}
        with pytest.raises(NotApplicable, match="it is not in the network"):
            await docker_disconnect_network(client, Network(network=net))
    async with client_of(shop) as stranger:
        # Who has not seen it before knows the network that it was made for, and the name of its service.
        await docker_connect_network(stranger, Network(network=net))
    assert "app" in inspected(shop)["NetworkSettings"]["Networks"][net]["Aliases"]


CALLS: dict[str, tuple[Any, Any]] = {
    "docker_restart": (docker_restart, NoArgs()),
    "docker_start": (docker_start, NoArgs()),
    "docker_unpause": (docker_unpause, NoArgs()),
    "docker_connect_network": (docker_connect_network, Network(network="bridge")),
    "docker_disconnect_network": (docker_disconnect_network, Network(network="bridge")),
    "docker_update_limits": (docker_update_limits, UpdateLimits(memory_mib=64)),
    "docker_scale": (docker_scale, Scale(replicas=2)),
    "docker_logs": (docker_logs, ReadLogs()),
    "docker_stats": (docker_stats, NoArgs()),
    "docker_inspect": (docker_inspect, NoArgs()),
}


@pytest.mark.parametrize("tool", CALLS)
async def test_without_an_engine_or_a_container_nothing_is_done_and_that_is_said(tool: str, tmp_path: Path) -> None:
    function, args = CALLS[tool]
    async with client_of("any", f"unix://{tmp_path}/gone.sock") as client:
        with pytest.raises(Unreachable, match="no engine answers at unix://"):
            await function(client, args)
    async with client_of("evenkeel-containers-none") as client:
        with pytest.raises(NotApplicable, match="No such container"):
            await function(client, args)
