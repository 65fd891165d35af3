"""nginx_test, nginx_revert_config and nginx_set_upstream on a real Nginx; effects are read from the file, the page and psutil."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from blocks.nginx_declared import NginxDeclared
from compose.description import LabDescription
from tasks.clients import nginx_configuration
from tasks.clients.nginx import NginxClient
from tasks.core.declare import NoArgs, ToolArgs
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.core.models import Change
from tasks.core.nginx_config import upstream_servers
from tasks.probes.nginx import measure
from tasks.tools.nginx_configuration import (
    RevertConfig,
    SetUpstream,
    nginx_revert_config,
    nginx_set_upstream,
    nginx_test,
)
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test

BROKEN = "events {\n    worker_connections 256;\n    no_such_directive on;\n}\n"
ELSEWHERE = "127.0.0.1:9"
Tool = Callable[[NginxClient, Any], Awaitable[Change]]
EVERY_TOOL: list[tuple[Tool, ToolArgs]] = [
    (nginx_test, NoArgs()),
    (nginx_revert_config, RevertConfig()),
    (nginx_set_upstream, SetUpstream(upstream="shop", server="127.0.0.1:1")),
]


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    async with nginx_under_test(fresh_web) as found:
        copy = found.config_path.with_name(".nginx.conf.known-good")
        copy.unlink(missing_ok=True)
        yield found


def with_upstream(text: str, *servers: str) -> str:
    block = "".join(f"server {server} max_fails=3;\n" for server in servers)
    return text.replace("    server {", f"    upstream shop {{\n{block}}}\n    server {{", 1).replace(
        "location / {", "location = /page {\nproxy_pass http://shop;\n}\nlocation / {", 1
    )


async def good(nginx: NginxUnderTest, **fields: Any) -> NginxClient:
    """A client that has seen the configuration serve well."""
    client = nginx.client(**fields)
    reading = await measure(client, client.resource)
    assert reading.values["config_known_good"] is True
    return client


async def test_a_good_file_passes_and_a_bad_one_is_told_with_the_reason_and_the_difference(nginx: NginxUnderTest) -> None:
    client = await good(nginx)
    report: dict[str, Any] = (await nginx_test(client, NoArgs())).after
    assert (report["passes"], report["error"], report["loaded"], report["known_good"], report["differs_in"]) == (True, None, True, True, [])
    nginx.config_path.write_bytes(nginx.baseline.replace(b"notice;", b"notice;\nno_such_directive on;"))
    workers = nginx.serving()
    change = await nginx_test(client, NoArgs())
    assert change.before == change.after
    told: dict[str, Any] = change.after
    assert (told["passes"], told["loaded"], told["known_good"]) == (False, False, False)
    assert 'unknown directive "no_such_directive"' in told["error"]
    assert told["differs_in"] == ["no_such_directive"]
    assert nginx.serving() == workers


async def test_a_revert_restores_what_served_well_without_a_restart_and_is_taken_back(nginx: NginxUnderTest) -> None:
    client = await good(nginx)
    master = nginx.master().pid
    nginx.config_path.write_text(BROKEN)
    change = await nginx_revert_config(client, RevertConfig())
    assert nginx.config_path.read_bytes() == nginx.baseline
    assert nginx.master().pid == master
    assert (await nginx.page()).status_code == 200
    assert "no_such_directive" in str(change.before["config_error"])
    assert change.after["config_error"] is None
    workers = nginx.serving()
    back = await nginx_revert_config(client, RevertConfig.model_validate(change.undo))
    assert nginx.config_path.read_text() == BROKEN, "as it was: on disk, and not loaded"
    assert nginx.serving() == workers
    assert "no_such_directive" in str(back.after["config_error"])


async def test_a_loaded_change_is_reverted_and_its_undo_loads_it_again(nginx: NginxUnderTest) -> None:
    client = await good(nginx)
    changed = nginx.baseline.replace(b"return 200", b"return 503")
    nginx.config_path.write_bytes(changed)
    await client.load_config(await client.require_processes())
    assert (await nginx.page()).status_code == 503
    change = await nginx_revert_config(client, RevertConfig())
    assert (await nginx.page()).status_code == 200
    await nginx_revert_config(client, RevertConfig.model_validate(change.undo))
    assert (await nginx.page()).status_code == 503
    assert nginx.config_path.read_bytes() == changed
    assert (await measure(client, client.resource)).values["config_known_good"] is False, "what was taken back to did not serve well"
    await nginx_revert_config(client, RevertConfig())
    assert (await nginx.page()).status_code == 200


async def test_there_is_nothing_to_revert_to_or_to_take_back(nginx: NginxUnderTest) -> None:
    client = nginx.client()
    with pytest.raises(NotApplicable, match="no configuration was seen serving well yet"):
        await nginx_revert_config(client, RevertConfig())
    await good(nginx)
    with pytest.raises(NotApplicable, match="is the last one that served well, and it is loaded"):
        await nginx_revert_config(client, RevertConfig())
    with pytest.raises(NotApplicable, match="no replaced configuration with the digest '0123'"):
        await nginx_revert_config(client, RevertConfig(take_back="0123"))
    assert nginx.config_path.read_bytes() == nginx.baseline


async def test_what_serves_well_counts_as_good_after_a_minute(nginx: NginxUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await good(nginx)
    changed = nginx.baseline.replace(b"worker_connections 256", b"worker_connections 300")
    nginx.config_path.write_bytes(changed)
    await client.load_config(await client.require_processes())
    assert (await measure(client, client.resource)).values["config_known_good"] is False
    monkeypatch.setattr(nginx_configuration, "GOOD_AFTER_SECONDS", 0)
    assert (await measure(client, client.resource)).values["config_known_good"] is True
    assert nginx.config_path.with_name(".nginx.conf.known-good").read_bytes() == changed


async def test_an_upstreams_server_is_corrected_with_its_parameters_and_taken_back(nginx: NginxUnderTest) -> None:
    right = f"127.0.0.1:{nginx.lab.web.port}"
    wrong = await nginx.configure(lambda text: with_upstream(text, ELSEWHERE))
    client = nginx.client(nginx=NginxDeclared(upstreams={"shop": (right, "127.0.0.1:1")}))
    assert (await nginx.page("/page")).status_code == 502
    seen = (await measure(client, client.resource)).values
    assert (seen["undeclared_servers"], seen["unused_servers"]) == ({"shop": [ELSEWHERE]}, {"shop": [right, "127.0.0.1:1"]})
    master, copy = nginx.master().pid, nginx.config_path.with_name(".nginx.conf.known-good")
    copy.write_bytes(wrong)
    change = await nginx_set_upstream(client, SetUpstream(upstream="shop", server=right))
    assert copy.read_bytes() == nginx.config_path.read_bytes(), "an edit of what served well"
    assert f"server {right} max_fails=3;" in nginx.config_path.read_text()
    assert (await nginx.page("/page")).status_code != 502
    assert nginx.master().pid == master
    assert (change.before["upstream_servers"], change.after["upstream_servers"]) == ([ELSEWHERE], [right])
    await nginx_revert_config(client, RevertConfig.model_validate(change.undo))
    assert nginx.config_path.read_bytes() == wrong
    assert copy.read_bytes() == wrong
    assert (await nginx.page("/page")).status_code == 502


async def test_only_declared_servers_are_put_in_and_none_of_them_is_taken_out(nginx: NginxUnderTest) -> None:
    before = await nginx.configure(lambda text: with_upstream(text, "127.0.0.1:1", ELSEWHERE, "127.0.0.1:8"))
    client = nginx.client(nginx=NginxDeclared(upstreams={"shop": ("127.0.0.1:1", "127.0.0.1:2")}))
    for args, why in (
        (SetUpstream(upstream="shop", server="10.0.0.1:80"), "is not among nginx.upstreams.shop"),
        (SetUpstream(upstream="carts", server="127.0.0.1:1"), "is not among nginx.upstreams.carts"),
        (SetUpstream(upstream="shop", server="127.0.0.1:2"), "2 servers of upstream shop are not declared"),
        (SetUpstream(upstream="shop", server="127.0.0.1:1", instead_of=ELSEWHERE), "stands in upstream shop already"),
        (SetUpstream(upstream="shop", server="127.0.0.1:2", instead_of="127.0.0.1:1"), "is declared for upstream shop, so it stays"),
        (SetUpstream(upstream="shop", server="127.0.0.1:2", instead_of="127.0.0.1:7"), "no server 127.0.0.1:7"),
    ):
        with pytest.raises(NotApplicable, match=why):
            await nginx_set_upstream(client, args)
    assert nginx.config_path.read_bytes() == before
    await nginx_set_upstream(client, SetUpstream(upstream="shop", server="127.0.0.1:2", instead_of=ELSEWHERE))
    assert upstream_servers(nginx.config_path.read_text())["shop"] == ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:8")


async def test_a_text_that_nginx_refuses_is_not_put_in_place(nginx: NginxUnderTest) -> None:
    """Though it is the one to go back to."""
    client = await good(nginx)
    nginx.config_path.with_name(".nginx.conf.known-good").write_text(BROKEN)
    with pytest.raises(ToolFailed, match=r'nginx -t refuses .* "no_such_directive" in .*/nginx\.conf:3'):
        await nginx_revert_config(client, RevertConfig())
    assert nginx.config_path.read_bytes() == nginx.baseline
    assert nginx.drafts() == []


@pytest.mark.parametrize(("tool", "args"), EVERY_TOOL, ids=lambda one: getattr(one, "__name__", ""))
async def test_a_server_that_is_gone_is_told(nginx: NginxUnderTest, tool: Tool, args: ToolArgs) -> None:
    declared = NginxDeclared(upstreams={"shop": ("127.0.0.1:1",)})
    unreachable = nginx.client(nginx=declared, runtime={"control": str(nginx.config_path.with_name("no.sock")), "service": "web"})
    with pytest.raises(Unreachable):
        await tool(unreachable, args)
    await nginx.runtime.stop()
    with pytest.raises(NotApplicable, match="no running Nginx is found"):
        await tool(nginx.client(nginx=declared), args)
    assert nginx.config_path.read_bytes() == nginx.baseline
