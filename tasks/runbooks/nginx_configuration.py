"""What is done about an Nginx that is configured wrongly, or holds to something old. Where the cause can't be told, nothing is yielded."""

from collections.abc import Iterator

from pydantic import JsonValue

from blocks.schema import Kind
from tasks.core.declare import Remedy, runbook
from tasks.core.models import Context, Health, Step
from tasks.runbooks.steps import step

EVIDENCE = (
    "page_ok",
    "page_status",
    "page_error",
    "certificate_error",
    "config_loaded",
    "config_error",
    "config_known_good",
    "undeclared_servers",
    "unused_servers",
    "pages_failing",
    "wrong_modes",
)


@runbook(service=Kind.NGINX, symptoms={"config_invalid"}, title="Nginx's configuration can't be loaded")
def nginx_config_invalid(context: Context) -> Iterator[Remedy]:
    """Go back to the configuration that is in force. Nginx is not restarted: that would end the workers that still serve."""
    yield from _revert(context, "the file on disk does not pass the test", "config_error null")


@runbook(service=Kind.NGINX, symptoms={"upstream_unreachable"}, title="Nginx does not reach what is behind it")
def nginx_upstream_unreachable(context: Context) -> Iterator[Remedy]:
    """Correct servers that are not declared; else go back to the good configuration; else load it, as names may have new addresses.

    Not while something that Nginx depends on is unwell: then that is the place to act.
    """
    if _dependency_is_unwell(context):
        return
    steps = tuple(_set_upstreams(context))
    if steps:
        yield _remedy(context, "an upstream names a server that is not declared", steps, "page_ok true, undeclared_servers empty")
    yield from _revert(context, "the page fails under a configuration that differs from the last good one", "page_ok true")
    loaded = context.observation.reading.values.get("config_loaded")
    if steps or context.observation.reading.values.get("config_error") or not (loaded is False or (loaded and context.dependencies)):
        return
    why = (
        "the file was changed and never loaded"
        if loaded is False
        else "what is behind Nginx is well and the configuration is right, so Nginx holds to an address that it looked up when it started"
    )
    reload = step(context, "nginx_reload", f"{why}; new workers take over, and requests under way end")
    yield _remedy(context, "the workers use a stale address", (reload,), "page_ok true")


@runbook(service=Kind.NGINX, symptoms={"upstream_timeout", "page_failing"}, title="The page fails under a changed configuration")
def nginx_changed_configuration(context: Context) -> Iterator[Remedy]:
    """Go back to the last configuration that served well, where another one is there now.

    Not while something that Nginx depends on is unwell, or where the connections are used up: both have remedies of their own.
    """
    symptoms = {finding.symptom for finding in context.observation.findings}
    if not _dependency_is_unwell(context) and "connections_high" not in symptoms:
        yield from _revert(context, "the page fails under a configuration that differs from the last good one", "page_ok true")


@runbook(service=Kind.NGINX, symptoms={"certificate_expired"}, title="The certificate has expired")
def nginx_certificate_expired(context: Context) -> Iterator[Remedy]:
    """Install the declared certificate; the tool refuses one that is not valid for the address."""
    if context.resource.nginx.certificate is None:
        return
    why = f"visitors refuse the certificate as {_value(context, 'certificate_error')}; the declared one is checked before it is installed"
    yield _remedy(
        context,
        "the certificate is out of date",
        (step(context, "nginx_install_certificate", why),),
        "page_ok true, certificate_error null",
    )


@runbook(service=Kind.NGINX, symptoms={"page_forbidden"}, title="Nginx may not read what it serves")
def nginx_page_forbidden(context: Context) -> Iterator[Remedy]:
    """Restore exactly the declared modes; where they are right, go back to the last good configuration."""
    wrong = _value(context, "wrong_modes")
    steps = tuple(
        step(context, "nginx_restore_mode", f"{path} has the mode {mode}, {context.resource.nginx.modes.get(path)} is declared", path=path)
        for path, mode in (wrong.items() if isinstance(wrong, dict) else ())
        if mode != "missing"
    )
    if steps:
        yield _remedy(context, "the modes of files keep Nginx from reading them", steps, "pages_failing and wrong_modes empty")
    else:
        yield from _revert(context, "the page is refused under a configuration that differs from the last good one", "page_ok true")


def _revert(context: Context, diagnosis: str, expected: str) -> Iterator[Remedy]:
    if _value(context, "config_known_good") is False:
        why = "the configuration that served well is kept; it is tested before it is loaded, no request is cut, and it can be taken back"
        yield _remedy(context, diagnosis, (step(context, "nginx_revert_config", why),), f"{expected}, config_known_good true")


def _set_upstreams(context: Context) -> Iterator[Step]:
    """Each server that is not declared, and a declared one that is missing, as long as there are of both."""
    undeclared, unused = _value(context, "undeclared_servers"), _value(context, "unused_servers")
    if not isinstance(undeclared, dict) or not isinstance(unused, dict):
        return
    for upstream, servers in undeclared.items():
        others = unused.get(upstream)
        for old, new in zip(servers if isinstance(servers, list) else (), others if isinstance(others, list) else (), strict=False):
            why = f"{old} is not declared for upstream {upstream}, {new} is and is missing"
            yield step(context, "nginx_set_upstream", why, upstream=upstream, server=new, instead_of=old)


def _dependency_is_unwell(context: Context) -> bool:
    return any(one.health is not Health.HEALTHY for one in context.dependencies)


def _remedy(context: Context, diagnosis: str, steps: tuple[Step, ...], expected: str) -> Remedy:
    evidence = tuple(f"{name} is {value}" for name in EVIDENCE if (value := _value(context, name)) not in (None, {}))
    return Remedy(diagnosis=diagnosis, steps=steps, expected=expected, evidence=evidence)


def _value(context: Context, name: str) -> JsonValue:
    return context.observation.reading.values.get(name)
