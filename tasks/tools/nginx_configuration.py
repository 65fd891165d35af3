"""Tools for Nginx's configuration file: test it, go back to the last that served well, correct a server of an upstream."""

from collections.abc import Mapping

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.config_file import ConfigFile, Content, discard
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_configuration import KNOWN_GOOD, REPLACED, known_good
from tasks.clients.nginx_loading import digest, load_text
from tasks.clients.nginx_processes import Processes
from tasks.core.declare import NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable
from tasks.core.models import Change, Observation
from tasks.core.nginx_config import ConfigError, differing, upstream_servers, with_server
from tasks.tools.nginx import state_of

MOST_DIFFERENCES = 20


class RevertConfig(ToolArgs):
    """Arguments of nginx_revert_config."""

    take_back: str = Field(
        "", max_length=16, description="Digest of a configuration that a tool has replaced, to put that one back; empty: revert."
    )


class SetUpstream(ToolArgs):
    """Arguments of nginx_set_upstream."""

    upstream: str = Field(max_length=200, description="Name of the upstream block.")
    server: str = Field(max_length=200, description="host:port that shall stand in it; one that the inventory declares for it.")
    instead_of: str = Field("", max_length=200, description="host:port that it replaces; empty: the only one that is not declared.")


def _differs_from_known_good(observation: Observation) -> bool:
    return observation.reading.values.get("config_known_good") is False


def _has_undeclared_server(observation: Observation) -> bool:
    return bool(observation.reading.values.get("undeclared_servers"))


def _reverts_what_is_good(args: Mapping[str, JsonValue], observation: Observation) -> str:
    if args.get("take_back"):
        return "the configuration with one that a remediation has replaced"
    return "" if _differs_from_known_good(observation) else "a configuration that was not measured to differ from the last good one"


def _changes_what_is_declared(args: Mapping[str, JsonValue], observation: Observation) -> str:
    undeclared = observation.reading.values.get("undeclared_servers")
    is_measured = isinstance(undeclared, dict) and args.get("upstream") in undeclared
    return "" if is_measured else f"upstream {args.get('upstream')}, which was not measured to have a server that is not declared"


@tool(service=Kind.NGINX, risk=Risk.READ_ONLY, title="Test the configuration")
async def nginx_test(client: NginxClient, args: NoArgs) -> Change:
    """Test the configuration file (nginx -t); tell how it differs from the last one that served well."""
    processes = await client.require_processes()
    file = client.config_file()
    content = file.read()
    kept = file.kept(KNOWN_GOOD)
    error = await client.config_error()
    found = await client.watch.state(file, processes, client)
    report: dict[str, JsonValue] = {
        "config_path": str(file.path),
        "passes": error is None,
        "error": error,
        "loaded": found.is_loaded,
        "known_good": None if kept is None else kept == content.text,
        "differs_in": [] if kept is None else list(_differences(kept, content.text)),
        "upstream_servers": {name: list(servers) for name, servers in found.servers.items()},
    }
    return Change(before=report, after=report)


@tool(
    service=Kind.NGINX,
    risk=Risk.REVERSIBLE,
    undo="nginx_revert_config",
    title="Go back to the last good configuration",
    timeout_seconds=25,
    symptoms={"config_invalid", "page_failing", "page_forbidden", "upstream_unreachable", "upstream_timeout"},
    aim=_reverts_what_is_good,
    fits=_differs_from_known_good,
)
async def nginx_revert_config(client: NginxClient, args: RevertConfig) -> Change:
    """Put the last configuration that served well back, test it, and load it without cutting requests."""
    await client.require_processes()  # they tell which file is loaded
    file = client.config_file()
    async with file.locked():
        before = await client.require_processes()
        content = file.read()
        if args.take_back:
            return await _take_back(client, file, content, before, args.take_back)
        text = known_good(file, client.resource.name)
        error = await client.config_error()
        state = _config_state(client, before, content, error)
        loaded = (await client.watch.state(file, before, client)).is_loaded
        if text == content.text and loaded:
            raise NotApplicable(f"{client.resource.name}: the configuration is the last one that served well, and it is loaded")
        file.keep(REPLACED, content)
        after = await load_text(client, file, content, text, before)
        undo: dict[str, JsonValue] | None = None if text == content.text else {"take_back": digest(content.text)}
    return Change(before=state, after=_config_state(client, after, file.read(), await client.config_error()), undo=undo)


@tool(
    service=Kind.NGINX,
    risk=Risk.REVERSIBLE,
    undo="nginx_revert_config",
    title="Correct an upstream's server",
    timeout_seconds=25,
    symptoms={"upstream_unreachable", "upstream_timeout"},
    aim=_changes_what_is_declared,
    fits=_has_undeclared_server,
)
async def nginx_set_upstream(client: NginxClient, args: SetUpstream) -> Change:
    """Put a declared server in the place of one that is not declared, and load the configuration."""
    await client.require_processes()
    file = client.config_file()
    declared = client.resource.nginx.upstreams.get(args.upstream, ())
    if args.server not in declared:
        raise NotApplicable(
            f"{client.resource.name}: {args.server} is not among nginx.upstreams.{args.upstream} of the inventory: {list(declared)}"
        )
    async with file.locked():
        before = await client.require_processes()
        content = file.read()
        try:
            servers = upstream_servers(content.text).get(args.upstream, ())
            old = args.instead_of or _only_undeclared(client.resource.name, args.upstream, servers, declared)
            if args.server in servers:
                raise NotApplicable(f"{client.resource.name}: {args.server} stands in upstream {args.upstream} already")
            if old in declared:
                raise NotApplicable(f"{client.resource.name}: {old} is declared for upstream {args.upstream}, so it stays")
            text = with_server(content.text, args.upstream, old, args.server)
        except ConfigError as error:
            raise NotApplicable(f"{client.resource.name}: the configuration can't be edited: {error}") from error
        state = {**state_of(client, before), "upstream_servers": list(servers)}
        file.keep(REPLACED, content)
        after = await load_text(client, file, content, text, before)
    now = upstream_servers(file.read().text).get(args.upstream, ())
    return Change(
        before=state,
        after={**state_of(client, after), "upstream_servers": list(now)},
        undo={"take_back": digest(content.text)},
    )


def _only_undeclared(name: str, upstream: str, servers: tuple[str, ...], declared: tuple[str, ...]) -> str:
    others = [server for server in servers if server not in declared]
    if len(others) != 1:
        raise NotApplicable(
            f"{name}: {len(others)} servers of upstream {upstream} are not declared: {others}; name one of them as instead_of"
        )
    return others[0]


async def _take_back(client: NginxClient, file: ConfigFile, content: Content, before: Processes, wanted: str) -> Change:
    """Put back what was replaced. Where it could not be loaded, it was not loaded before either: then only the file changes."""
    text = file.kept(REPLACED)
    if text is None or digest(text) != wanted:
        raise NotApplicable(f"{client.resource.name}: no replaced configuration with the digest {wanted!r} is kept")
    state = _config_state(client, before, content, await client.config_error())
    draft = file.draft(text, content)
    try:
        error = await client.config_error(str(draft.path))
        if error is not None:
            file.put(draft)
    finally:
        discard(draft)
    after = before if error is not None else await load_text(client, file, content, text, before, takes_back=True)
    return Change(before=state, after=_config_state(client, after, file.read(), error))


def _config_state(client: NginxClient, processes: Processes, content: Content, error: str | None) -> dict[str, JsonValue]:
    return {**state_of(client, processes), "config": digest(content.text), "config_error": error}


def _differences(one: str, other: str) -> tuple[str, ...]:
    try:
        return differing(one, other)[:MOST_DIFFERENCES]
    except ConfigError as error:
        return (f"can't be compared: {error}",)
