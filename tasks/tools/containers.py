"""Tools for the state of a container: whether it runs, and which networks it is in."""

from typing import Any

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.container_facts import Inspected, compose_service, created_in, grace_seconds, labels, networks
from tasks.clients.containers import ContainerClient
from tasks.core.declare import NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change, Observation

CHANGE_SECONDS = 30.0
DOWN = {"exited", "created", "dead"}


class Network(ToolArgs):
    """Which network."""

    network: str = Field(min_length=1, max_length=128, description="Name of the network, such as shop_default.")


def _interrupts(_args: Any, observation: Observation) -> str:
    answering = str(observation.reading.values.get("ports_answering") or "0 of")
    only_its_check_fails = [finding.symptom for finding in observation.findings] == ["unhealthy"]
    return f"a service that answers on {answering} of its ports" if only_its_check_fails and not answering.startswith("0 of") else ""


@tool(
    service=Kind.CONTAINER,
    risk=Risk.DISRUPTIVE,
    title="Restart the container",
    timeout_seconds=60,
    symptoms={"unhealthy", "oom_killed", "memory_high"},
    aim=_interrupts,
)
async def docker_restart(client: ContainerClient, _args: NoArgs) -> Change:
    """Stop the container by its own signal, by force after its grace period, and start it again.

    NotApplicable: it does not run (then it is started), or is paused (then a restart would kill what is in it).
    """
    before = await client.inspect()
    if _state(before) not in {"running", "restarting"}:
        raise NotApplicable(
            f"{client.name}: it is {_state(before)}; docker_{'unpause' if _state(before) == 'paused' else 'start'} is for that"
        )
    await _change(client, lambda engine: engine.containers.get(before["Id"]).restart(timeout=grace_seconds(before)))
    return Change(before=_values(before), after=_values(await _running(client)))


@tool(
    service=Kind.CONTAINER,
    risk=Risk.DISRUPTIVE,
    title="Start the container",
    timeout_seconds=40,
    symptoms={"container_down", "oom_killed"},
)
async def docker_start(client: ContainerClient, _args: NoArgs) -> Change:
    """Start a container that is down, as it was made, with its own volumes.

    NotApplicable: it is not down. ToolFailed: the engine can't start it, as where its port is taken, or it ended at once.
    """
    before = await client.inspect()
    if _state(before) not in DOWN:
        raise NotApplicable(f"{client.name}: it is {_state(before)}, not down")
    await _change(client, lambda engine: engine.containers.get(before["Id"]).start())
    return Change(before=_values(before), after=_values(await _running(client)))


@tool(service=Kind.CONTAINER, risk=Risk.DISRUPTIVE, title="Let a paused container go on", timeout_seconds=40, symptoms={"paused"})
async def docker_unpause(client: ContainerClient, _args: NoArgs) -> Change:
    """Let the frozen processes of a paused container go on where they stopped."""
    before = await client.inspect()
    if _state(before) != "paused":
        raise NotApplicable(f"{client.name}: it is {_state(before)}, not paused")
    await _change(client, lambda engine: engine.containers.get(before["Id"]).unpause())
    return Change(before=_values(before), after=_values(await _running(client)))


@tool(
    service=Kind.CONTAINER,
    risk=Risk.REVERSIBLE,
    undo="docker_disconnect_network",
    title="Connect to a network again",
    timeout_seconds=40,
    symptoms={"network_detached"},
)
async def docker_connect_network(client: ContainerClient, args: Network) -> Change:
    """Connect the container to a network that it was made for or has been in, under the names it had.

    NotApplicable: it is in the network, or was never seen there.
    """
    before = await client.inspect()
    known = await _networks_it_had(client, before)
    if args.network in networks(before):
        raise NotApplicable(f"{client.name}: it is in the network {args.network}")
    if args.network not in known:
        raise NotApplicable(f"{client.name}: it was never in the network {args.network}; it was in {', '.join(sorted(known)) or 'none'}")
    aliases = _names_in(args.network, before, known[args.network])
    await _change(client, lambda engine: engine.networks.get(args.network).connect(before["Id"], aliases=aliases))
    after = await client.inspect()
    if args.network not in networks(after):
        raise ToolFailed(f"{client.name}: the engine took it, but the container is not in the network {args.network}")
    return Change(before=_networks(before), after=_networks(after), undo={"network": args.network})


def _cuts_off(args: Any, _observation: Observation) -> str:
    return f"every connection over the network {args.get('network')}"


@tool(
    service=Kind.CONTAINER,
    risk=Risk.DISRUPTIVE,
    title="Take out of a network",
    timeout_seconds=40,
    symptoms={"network_detached"},
    aim=_cuts_off,
)
async def docker_disconnect_network(client: ContainerClient, args: Network) -> Change:
    """Take the container out of a network, as docker_connect_network is taken back.

    NotApplicable: it is not in it.
    """
    before = await client.inspect()
    if args.network not in networks(before):
        raise NotApplicable(f"{client.name}: it is not in the network {args.network}")
    await _change(client, lambda engine: engine.networks.get(args.network).disconnect(before["Id"]))
    return Change(before=_networks(before), after=_networks(await client.inspect()))


async def _change(client: ContainerClient, action: Any) -> None:
    await client.engine.call(client.name, action, sent=True, seconds=CHANGE_SECONDS)


async def _running(client: ContainerClient) -> Inspected:
    """The container as it is now; ToolFailed where it does not run."""
    after = await client.inspect()
    if _state(after) != "running":
        state = after["State"]
        raise ToolFailed(f"{client.name}: is {state['Status']} with exit code {state['ExitCode']} {state['Error']}".rstrip())
    return after


async def _networks_it_had(client: ContainerClient, inspected: Inspected) -> dict[str, list[str]]:
    own = created_in(inspected)
    return {**({} if own is None else {own: []}), **(await client.watched(sampled=False)).networks}


def _names_in(network: str, inspected: Inspected, seen: list[str]) -> list[str]:
    """The names that it had there; without them others find it by no name but its own. The default bridge knows none."""
    if network == "bridge":
        return []
    owner = compose_service(labels(inspected))
    return seen or ([] if owner is None else [owner.service])


def _state(inspected: Inspected) -> str:
    return str(inspected["State"]["Status"])


def _values(inspected: Inspected) -> dict[str, JsonValue]:
    state = inspected["State"]
    return {"state": state["Status"], "started_at": state["StartedAt"], "exit_code": state["ExitCode"]}


def _networks(inspected: Inspected) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for name, aliases in networks(inspected).items():
        found[name] = [*sorted(aliases)]
    return {"networks": found}
