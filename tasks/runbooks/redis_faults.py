"""What is done about a Redis whose clients, settings, role, logins or files are wrong. Where a rule can't tell, it yields nothing."""

from collections.abc import Iterator

from pydantic import JsonValue

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context
from tasks.core.values import Values, items, part
from tasks.runbooks.steps import evidence, step

WHERE_IT_SAVES = ("dir", "dbfilename")
HOW_IT_SAVES = (*WHERE_IT_SAVES, "save", "stop-writes-on-bgsave-error")
HEALTHY = "write_ok true, and no finding"


@runbook(service=Kind.REDIS, symptoms={"clients_high", "clients_exhausted"}, title="Redis' clients are used up")
def redis_clients_used_up(context: Context) -> Iterator[Remedy]:
    """Restore maxclients where it was lowered; then end the idle clients of the one application that has half of them.

    Where nobody has half of them it can't be told whose are too many.
    """
    values = context.observation.reading.values
    changed = _drift(context).get("maxclients")
    if changed is not None and _figure(changed.get("declared")) > _figure(changed.get("now")):
        why = f"{_clients(values)}; maxclients is {changed.get('now')}, and the configuration file says {changed.get('declared')}"
        yield _remedy(
            context, "maxclients was lowered", "redis_config_restore", why, {"settings": ["maxclients"]}, "clients_percent", "drift"
        )
    group = _largest_group(values)
    if group is not None:
        name = group.get("name") or "clients without a name"
        why = (
            f"{_clients(values)}; {group.get('count')} of them are {name} ({group.get('user')} from {group.get('address')}), idle for "
            f"{group.get('median_idle_seconds')} s in the middle; ending the idle ones loses nothing that is stored"
        )
        args = {"name": group.get("name"), "user": group.get("user"), "address": group.get("address"), "min_idle_seconds": 1}
        yield _remedy(
            context, f"{name} keeps connections and does not use them", "redis_kill_clients", why, args, "clients_percent", "top_clients"
        )


@runbook(service=Kind.REDIS, symptoms={"persistence_failing"}, title="Redis can't save")
def redis_saving(context: Context) -> Iterator[Remedy]:
    """Restore where and how the server saves, where that was changed at run time; a failing disk is for a person.

    To allow writes that are not saved (stop-writes-on-bgsave-error no) is no remedy.
    """
    changed = _drift(context)
    settings = [name for name in HOW_IT_SAVES if name in changed]
    if not set(WHERE_IT_SAVES) & set(settings):
        return
    told = ", ".join(f"{name} is {changed[name].get('now') or 'gone'}, declared {changed[name].get('declared')}" for name in settings)
    why = f"saving fails, and where it saves was changed at run time: {told}"
    yield _remedy(
        context, "the server saves where it can't write", "redis_config_restore", why, {"settings": [*settings]}, "write_error", "drift"
    )


@runbook(service=Kind.REDIS, symptoms={"script_blocking"}, title="A script blocks Redis")
def redis_script(context: Context) -> Iterator[Remedy]:
    """End the script; one that has written can't be ended, and a person decides between waiting and losing data."""
    why = "every command is refused as BUSY; ending the script gives its caller an error and loses nothing"
    yield _remedy(context, "a script runs and keeps everybody waiting", "redis_script_kill", why, {}, "blocked_by_script", "error")


@runbook(service=Kind.REDIS, symptoms={"unexpected_replica"}, title="Redis is a replica and should not be")
def redis_replica(context: Context) -> Iterator[Remedy]:
    """Make it primary again where its master does not answer; a link that stands may be a failover, which is for a person."""
    values = context.observation.reading.values
    if values.get("master_link_status") == "up":
        return
    why = f"the inventory declares it primary, and its link to {values.get('master')} is {values.get('master_link_status')}; its data stays"
    yield _remedy(
        context, "it was made a replica of a server that it gets nothing from", "redis_promote", why, {}, "master", "master_link_status"
    )


@runbook(service=Kind.REDIS, symptoms={"auth_refused"}, title="Redis refuses the application's login")
def redis_login(context: Context) -> Iterator[Remedy]:
    """Let the application in again as inventory and configuration file both say; the tool refuses where they differ."""
    why = "the application can't log in; its declared password is accepted again, other passwords and permissions stay as they are"
    names = ("application_user", "application_login")
    yield _remedy(context, "the application's login was changed at run time", "redis_realign_login", why, {}, *names)


@runbook(service=Kind.REDIS, symptoms={"aof_broken"}, title="Redis can't read its append-only file")
def redis_broken_aof(context: Context) -> Iterator[Remedy]:
    """Propose to repair a copy of the file and to keep the broken one: a person decides, for the last writes are lost."""
    if not isinstance(context.resource.runtime, ProcessRuntime):
        return
    why = f"the server does not start, as {context.observation.reading.values.get('broken_aof')} can't be read to its end; the file is kept"
    yield _remedy(context, "the end of the append-only file is broken", "redis_repair_aof", why, {}, "broken_aof")


def _remedy(context: Context, diagnosis: str, tool: str, why: str, args: dict[str, JsonValue], *names: str) -> Remedy:
    return Remedy(
        diagnosis=diagnosis,
        steps=(step(context, tool, why, **args),),
        expected=HEALTHY,
        evidence=evidence(context.observation.reading.values, *names),
    )


def _drift(context: Context) -> dict[str, Values]:
    found = part(context.observation.reading.values, "drift")
    return {name: values for name, values in found.items() if isinstance(values, dict)}


def _largest_group(values: Values) -> Values | None:
    """The largest group of clients, if it has half of maxclients."""
    most = values.get("maxclients")
    group = next(iter(items(values, "top_clients")), None)
    if not isinstance(group, dict) or not isinstance(most, int | float):
        return None
    return group if _figure(group.get("count")) >= most / 2 else None


def _clients(values: Values) -> str:
    return f"{values.get('connected_clients')} of {values.get('maxclients')} clients are connected ({values.get('clients_percent')} %)"


def _figure(value: JsonValue) -> float:
    """The number of a value or of its text; -1 where it is none."""
    try:
        return float(value) if isinstance(value, str | int | float) else -1
    except ValueError:
        return -1
