"""Tools for Nginx. Each works on the processes of this machine and reads its effect back from them."""

import contextlib
import signal

import httpx
from pydantic import Field, JsonValue

from blocks.schema import Kind, Resource, Risk
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_loading import load_text
from tasks.clients.nginx_processes import Identity, Processes
from tasks.clients.nginx_report import read_report
from tasks.clients.polling import poll
from tasks.clients.runtime import require_runtime
from tasks.core.declare import Growth, NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change, Observation
from tasks.core.nginx_config import EVENTS, ConfigError, read_number, read_worker_connections, with_value, without

START_SECONDS = 5.0
END_SECONDS = 1.0
RELOADED = frozenset({"page_failing", "unresponsive", "upstream_unreachable", "upstream_timeout"})
"""What new workers may cure: among it, names that were resolved when the old ones started, and edits that nobody loaded."""
FILES_BESIDE_CONNECTIONS = 64
"""Logs, listening sockets, and the like, that a worker has open beside its connections."""


class ScaleConnections(ToolArgs):
    """Arguments of nginx_scale_connections."""

    worker_connections: int = Field(ge=1, le=1_000_000, description="Connections that each worker may hold at once.")
    open_files: int | None = Field(
        None, ge=0, le=2_000_000, description="worker_rlimit_nofile; 0: without it; none: raised where the connections need it."
    )


class ClearConnections(ToolArgs):
    """Arguments of nginx_clear_connections."""

    drain_seconds: float = Field(1, ge=0, le=30, description="Time for requests under way to end by themselves, in seconds.")


@tool(service=Kind.NGINX, risk=Risk.READ_ONLY, title="Look at Nginx")
async def nginx_info(client: NginxClient, args: NoArgs) -> Change:
    """Read version, main directives, workers, connections by remote address, and what the error log says."""
    report = await read_report(client)
    return Change(before=report, after=report)


def _workers_run(observation: Observation) -> bool:
    """Whether there are workers of this machine that new ones can take over from."""
    return observation.reading.values.get("worker_processes") is not None


@tool(
    service=Kind.NGINX,
    risk=Risk.DISRUPTIVE,
    title="Load the configuration",
    symptoms=RELOADED,
    after=("nginx_set_upstream", "nginx_revert_config"),
    fits=_workers_run,
)
async def nginx_reload(client: NginxClient, args: NoArgs) -> Change:
    """Test the configuration and load it with new workers; the old ones finish their requests.

    Disruptive: whatever stands in the file comes into force, kept connections end, and worker_shutdown_timeout may cut requests.
    """
    before = await client.require_processes()
    state = state_of(client, before)
    await client.check_config()
    after = await client.load_config(before)
    return Change(before=state, after=state_of(client, after))


@tool(
    service=Kind.NGINX,
    risk=Risk.DISRUPTIVE,
    title="Restart Nginx",
    timeout_seconds=30,
    symptoms={"down", "unresponsive"},
    after=("nginx_reload",),
)
async def nginx_restart(client: NginxClient, args: NoArgs) -> Change:
    """Stop Nginx and start it again, or start it where it is down; every connection is cut.

    A running one is restarted only if its configuration passes the test.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    status = await runtime.status()
    before = await client.processes()
    if status.state == "running":
        await client.require_processes()
    # Where none was seen running there is no binary to test with, and nothing to lose by the start, which tests it too.
    if client.invocation is not None:
        await client.check_config()
    state: dict[str, JsonValue] = {"state": status.state, **state_of(client, before)}
    try:
        await runtime.restart()
        after = await _wait_until_it_answers(client, before)
    except ToolFailed as error:
        said = [line for line in await runtime.log(20) if "[emerg]" in line][-1:]
        raise ToolFailed(" ".join([str(error), *said])) from error
    return Change(before=state, after={"state": "running", **state_of(client, after)})


@tool(
    service=Kind.NGINX,
    risk=Risk.REVERSIBLE,
    undo="nginx_scale_connections",
    title="Change the connection limit",
    timeout_seconds=25,
    symptoms={"connections_high"},
    growth=Growth(
        argument="worker_connections", measured="worker_connections", limit="connections", share="connections_percent", unset_limit=4096
    ),
)
async def nginx_scale_connections(client: NginxClient, args: ScaleConnections) -> Change:
    """Set worker_connections in the configuration, test it, and load it without cutting requests."""
    await client.require_processes()  # they tell which file is loaded
    file = client.config_file()
    async with file.locked():
        before = await client.require_processes()
        state = state_of(client, before)
        content = file.read()
        old = _limit_now(client, before, content.text)
        _refuse_too_many(client.resource, args.worker_connections, old)
        text, undo = _edited(content.text, args, before, old)
        if text == content.text and state["worker_connections"] == args.worker_connections:
            return Change(before=state, after=state)
        needed = read_worker_connections(text)
        after = await load_text(client, file, content, text, before, lambda now: _require_open_files(client.resource, now, needed))
    return Change(before=state, after=state_of(client, after), undo=undo)


@tool(
    service=Kind.NGINX,
    risk=Risk.DISRUPTIVE,
    title="End held connections",
    timeout_seconds=45,
    symptoms={"connections_high"},
    after=("nginx_scale_connections",),
)
async def nginx_clear_connections(client: NginxClient, args: ClearConnections) -> Change:
    """End the connections held now: new workers take over, the old ones are ended after a grace period."""
    before = await client.require_processes()
    state = state_of(client, before)
    if before.connections == 0 or not any(worker.connections != 0 for worker in before.workers):
        raise NotApplicable(f"{client.resource.name}: no worker holds a connection")
    await client.check_config()
    await client.load_config(before)
    old = {worker.identity for worker in before.workers}
    left = await _wait_until_gone(client, old, args.drain_seconds)
    for number in (signal.SIGTERM, signal.SIGKILL):  # a worker that is stopped heeds only the second
        for identity in left:
            with contextlib.suppress(NotApplicable):  # it has just ended
                await client.signal_worker(before, identity, number)
        left = await _wait_until_gone(client, left, END_SECONDS)
    if left:
        raise ToolFailed(f"{client.resource.name}: {len(left)} old workers did not end: {', '.join(str(pid) for pid, _ in sorted(left))}")
    return Change(before=state, after=state_of(client, await client.require_processes()))


def state_of(client: NginxClient, processes: Processes | None) -> dict[str, JsonValue]:
    """What tools change, as read from the processes; `connections_held` counts those of draining workers too."""
    if processes is None:
        return {"master_pid": None, "worker_pids": [], "connections_held": 0}
    usage = client.usage(processes)
    serving = processes.of("serving")
    limits = {client.worker_connections(worker) for worker in serving}
    held = [processes.connections] if processes.connections is not None else [worker.connections for worker in processes.workers]
    return {
        "master_pid": processes.master[0],
        "worker_pids": [worker.pid for worker in serving],
        "worker_connections": limits.pop() if len(limits) == 1 else None,
        "open_files": min((worker.open_files for worker in serving if worker.open_files is not None), default=None),
        "connections_used": usage.used,
        "connections_max": usage.maximum,
        "connections_held": None if None in held else sum(own for own in held if own is not None),
        "draining_workers": len(processes.of("draining")),
        "stopped_workers": len(processes.of("stopped")),
    }


def _limit_now(client: NginxClient, processes: Processes, text: str) -> int:
    """worker_connections of the running workers, of the file where theirs is not known."""
    try:
        stated = read_worker_connections(text)
    except ConfigError as error:
        raise NotApplicable(f"{client.resource.name}: {error}") from error
    running = [limit for worker in processes.of("serving") if (limit := client.worker_connections(worker)) is not None]
    return min(running, default=stated)


def _refuse_too_many(resource: Resource, wanted: int, old: int) -> None:
    limit = resource.limits.connections
    if limit is not None and wanted > max(limit, old):
        raise NotApplicable(f"{resource.name}: worker_connections {wanted} is above limits.connections, which is {limit}")


def _edited(text: str, args: ScaleConnections, processes: Processes, old: int) -> tuple[str, dict[str, JsonValue] | None]:
    """The configuration with the new values, and the arguments that take them back."""
    wanted, files = args.worker_connections, args.open_files
    undo: dict[str, JsonValue] = {"worker_connections": old}
    try:
        stated = read_number(text, "worker_rlimit_nofile")
        if files is None:
            files = _open_files_for(wanted, processes)
        edited = with_value(text, "worker_connections", str(wanted), EVENTS)
        if files == 0:
            edited = without(edited, "worker_rlimit_nofile")
        elif files is not None:
            edited = with_value(edited, "worker_rlimit_nofile", str(files))
    except ConfigError as error:
        raise NotApplicable(f"the configuration can't be edited: {error}") from error
    if files is not None and files != (stated or 0):
        undo["open_files"] = stated or 0
    return edited, undo if edited != text or wanted != old else None


def _open_files_for(worker_connections: int, processes: Processes) -> int | None:
    """worker_rlimit_nofile that these connections need; None where the limit is high enough as it is."""
    needed = worker_connections + FILES_BESIDE_CONNECTIONS
    limits = processes.open_files
    current = min((worker.open_files for worker in processes.workers if worker.open_files is not None), default=0)
    if limits is None or current >= needed:
        return None
    hard = limits[1]
    if needed > hard:
        raise NotApplicable(
            f"worker_connections {worker_connections} needs {needed} open files, Nginx may have {hard}: raise its hard limit"
        )
    return min(2 * worker_connections + FILES_BESIDE_CONNECTIONS, hard)


def _require_open_files(resource: Resource, processes: Processes, needed: int) -> None:
    for worker in processes.of("serving"):
        if worker.open_files is not None and worker.open_files < needed:
            raise ToolFailed(f"{resource.name}: the new workers may open only {worker.open_files} files; the old configuration is back")


async def _wait_until_gone(client: NginxClient, wanted: set[Identity], seconds: float) -> set[Identity]:
    """Those of the workers that are still there after so many seconds, or as soon as there are none."""
    left = wanted

    async def gone() -> bool | None:
        nonlocal left
        now = await client.processes()
        left = wanted & {worker.identity for worker in now.workers} if now is not None else set()
        return None if left else True

    await poll(gone, seconds=seconds)
    return left


async def _wait_until_it_answers(client: NginxClient, before: Processes | None) -> Processes:
    """The processes of a new master whose page answers, with whatever status; ToolFailed where that does not come about."""
    seen = "no new master process"

    async def answers() -> Processes | None:
        nonlocal seen
        now = await client.processes()
        if now is None or (before is not None and now.master == before.master) or not now.of("serving"):
            return None
        try:
            await client.http.get(client.resource.address, timeout=1)
        except httpx.TransportError as error:
            seen = f"the page gives {type(error).__name__}"
            return None
        return now

    found = await poll(answers, seconds=START_SECONDS)
    if found is None:
        raise ToolFailed(f"{client.resource.name}: not serving {START_SECONDS:g} s after the start: {seen}")
    return found
