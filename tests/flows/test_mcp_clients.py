"""The public MCP clients against the running server: the inspector's command line, and the conformance suite."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from compose.control_plane import ControlPlane
from compose.description import LabDescription
from tasks.catalog import load_catalog
from tests.flows.commands import Output, output_of
from tests.flows.mcp_serving import ROOT, TOKEN
from tests.tasks.mcp_clients.conformance import APPLICABLE, UNTESTABLE, not_applicable, read_checks
from tests.tasks.mcp_clients.with_token import with_token

CLIENTS = ROOT / ".venv" / "mcp-clients"
BIN = CLIENTS / "node_modules" / ".bin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not (CLIENTS / "installed").exists(), reason="needs the public MCP clients: make mcp-clients (npm)"),
]


async def node(program: str, *arguments: str, directory: Path) -> Output:
    """What a program of the public clients left."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(directory)}
    return await output_of(str(BIN / program), *arguments, directory=directory, environment=environment)


async def test_the_inspector_lists_and_calls_over_http(served: str, tmp_path: Path) -> None:
    async def inspect(*arguments: str, token: str = TOKEN) -> tuple[int, Any]:
        code, out, error = await node(
            "mcp-inspector",
            "--cli",
            served,
            "--transport",
            "http",
            "--header",
            f"Authorization: Bearer {token}",
            *arguments,
            directory=tmp_path,
        )
        return code, json.loads(out) if out else error

    call = ("--method", "tools/call", "--tool-name")
    (listed, tools), (read, info), (refused, denied), (_, resources), (_, prompts), (unknown, said) = await asyncio.gather(
        inspect("--method", "tools/list", "--strict"),  # no schema of the tools has an error
        inspect(*call, "redis_info", "--tool-arg", "resource=shop-cache"),
        inspect(*call, "redis_set_maxmemory", "--tool-arg", "resource=shop-cache", "mebibytes=96", "why=trying"),
        inspect("--method", "resources/read", "--uri", "evenkeel://status/shop-cache"),
        inspect("--method", "prompts/get", "--prompt-name", "incident", "--prompt-args", "resource=shop-cache"),
        inspect("--method", "tools/list", token="another-token-of-somebody"),
    )
    assert (listed, read) == (0, 0)
    assert {tool["name"] for tool in tools["tools"]} >= load_catalog().tools.keys()
    assert info["structuredContent"]["read"]["maxmemory_mib"] == 64
    assert refused != 0
    assert denied["isError"]
    assert "can't ask a person" in denied["content"][0]["text"]
    assert json.loads(resources["contents"][0]["text"])["resources"][0]["health"] == "HEALTHY"
    assert "shop-cache (redis, role cache) is HEALTHY" in prompts["messages"][0]["content"]["text"]
    assert unknown != 0
    assert "auth" in said


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_the_documented_host_configurations_work(
    transport: str, served: str, prefect_server: ControlPlane, lab: LabDescription, tmp_path: Path
) -> None:
    stdio, http = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8"), re.DOTALL)
    text = stdio if transport == "stdio" else http
    for written, here in (
        ("/path/to/evenkeel/.venv/bin/python", sys.executable),
        ("/path/to/evenkeel", str(ROOT)),
        ("http://127.0.0.1:4200/api", prefect_server.api_url),
        ("http://127.0.0.1:9096/mcp", served),
        ("${EVENKEEL_MCP_TOKEN}", TOKEN),
    ):
        text = text.replace(written, here)
    configuration = tmp_path / "host.json"
    configuration.write_text(text)
    arguments = ("--method", "tools/call", "--tool-name", "redis_info", "--tool-arg", "resource=shop-cache")
    code, out, error = await node(
        "mcp-inspector", "--cli", "--config", str(configuration), "--server", "evenkeel", *arguments, directory=tmp_path
    )
    assert code == 0, error
    assert json.loads(out)["structuredContent"]["read"]["maxmemory_mib"] == 64


@pytest.mark.parametrize("revision", APPLICABLE)
async def test_the_applicable_scenarios_of_the_conformance_suite_pass(served: str, revision: str, tmp_path: Path) -> None:
    async with with_token(served, TOKEN) as url:
        _, out, _ = await node(
            "conformance", "server", "--url", url, "--requirements", revision, "--output-dir", "checks", directory=tmp_path
        )
    checks = read_checks(tmp_path / "checks")
    for scenario in APPLICABLE[revision]:
        assert checks.get(scenario), f"{scenario}: made no check\n{out}"
        assert [one.id for one in checks[scenario] if one.status == "FAILURE" and one.id not in UNTESTABLE] == []
    others = checks.keys() - set(APPLICABLE[revision])
    assert [name for name in sorted(others) if not not_applicable(name)] == []
