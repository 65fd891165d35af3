"""Nginx in a container: measured and changed through its runtime, from a place that sees its processes and from one that does not."""

import asyncio
import contextlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks.nginx_declared import CertificateFiles, NginxDeclared
from blocks.runtimes import ContainerRuntime
from blocks.schema import Kind, Resource
from compose.certificates import write_certificates
from compose.description import HOST, free_ports
from tasks.clients import nginx as client_module
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_inside import parse_inside
from tasks.clients.polling import poll
from tasks.connecting import open_client
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable
from tasks.core.nginx_judgement import judge
from tasks.probes.nginx import measure
from tasks.tools.nginx import ClearConnections, ScaleConnections, nginx_clear_connections, nginx_info, nginx_scale_connections
from tasks.tools.nginx_configuration import RevertConfig, nginx_revert_config, nginx_test
from tasks.tools.nginx_files import InstallCertificate, nginx_install_certificate
from tests.tasks.engine import docker, network

NGINX = Path(__file__).parents[3] / "compose" / "nginx"
CONFIGURATION = """\
user www-data;
worker_processes 1;
worker_shutdown_timeout 5s;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
    access_log off;
    upstream shop { server 127.0.0.1:81; }
    server {
        listen 80;
        listen 443 ssl;
        ssl_certificate tls/shop.crt;
        ssl_certificate_key /etc/nginx/tls/shop.key;
        location / { return 200 "hello"; }
        location /slow { proxy_pass http://shop; }
    }
    server { listen 81; location / { limit_rate 1; return 200 "0123456789012345678901234567890123456789"; } }
}
"""
PRINTED = """\
process 1 nginx: master process nginx -g daemon off;
1 (nginx) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1
Max open files            1024                 524288               files
process 7 nginx: worker process
7 (nginx) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4712 1 1
Max open files            1024                 524288               files
process 8 nginx: worker process is shutting down
8 (nginx) T 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4713 1 1

established 42
"""


@dataclass
class Box:
    """A container with Nginx."""

    name: str
    directory: Path
    port: int
    tls_port: int

    def resource(self, **fields: Any) -> Resource:
        tls = self.directory / "tls"
        declared = NginxDeclared(
            ca_path=str(tls / "ca.crt"),
            certificate=CertificateFiles(certificate=str(tls / "issued.crt"), key=str(tls / "issued.key")),
        )
        given = {"runtime": ContainerRuntime(container=self.name), "config_path": str(self.directory / "nginx.conf"), "nginx": declared}
        return Resource(**{"name": "web", "kind": Kind.NGINX, "address": f"https://{HOST}:{self.tls_port}/", **given, **fields})


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    docker("build", "--quiet", "--tag", "evenkeel-lab-nginx", str(NGINX))
    port, tls_port = free_ports(2)
    name = f"evenkeel-nginx-{uuid.uuid4().hex[:10]}"
    with tempfile.TemporaryDirectory(prefix="evenkeel-nginx-") as directory, network() as net:
        path = Path(directory)
        path.chmod(0o755)
        (path / "nginx.conf").write_text(CONFIGURATION)
        write_certificates(path / "tls", HOST)
        ports = ("--publish", f"{HOST}:{port}:80", "--publish", f"{HOST}:{tls_port}:443")
        try:
            options = ("--label", "evenkeel.owner=nginx", "--network", net, *ports)
            docker("run", "--detach", "--name", name, *options, "--volume", f"{path}:/etc/nginx", "evenkeel-lab-nginx")
            yield Box(name, path, port, tls_port)
        finally:
            docker("rm", "--force", "--volumes", name)


@pytest.fixture(params=["from this machine", "from inside"])
async def client(box: Box, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NginxClient]:
    """A client that sees the container's processes on this machine, and one that does not, as in another container."""
    if request.param == "from inside":
        monkeypatch.setattr(client_module, "read_processes", lambda _pid: None)
    opened = open_client(box.resource(), {})
    assert isinstance(opened, NginxClient)

    async def well() -> bool | None:
        return (await measure(opened, opened.resource)).values["page_ok"] is True or None

    assert await poll(well, seconds=20, every_seconds=0.1)
    yield opened
    await opened.close()
    (box.directory / "nginx.conf").write_text(CONFIGURATION)
    docker("exec", box.name, "nginx", "-s", "reload")


@contextlib.asynccontextmanager
async def held(box: Box, count: int) -> AsyncIterator[None]:
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(HOST, box.port)
        writer.write(b"GET /slow HTTP/1.0\r\nHost: shop\r\n\r\n")
        writers.append(writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def values_once(client: NginxClient, name: str, least: float) -> dict[str, Any]:
    """The values as soon as one is high enough."""

    async def high() -> dict[str, Any] | None:
        values: dict[str, Any] = (await measure(client, client.resource)).values
        return values if (values[name] or 0) >= least else None

    found = await poll(high, seconds=20, every_seconds=0.1)
    assert found is not None, f"{name} is not {least}: {(await measure(client, client.resource)).values}"
    return found


@pytest.mark.slow
@pytest.mark.docker
async def test_its_connections_are_counted_scaled_and_cleared(box: Box, client: NginxClient) -> None:
    async with held(box, 80):
        # A held request takes three here: the visitor's, and both ends of the one to the server itself.
        values = await values_once(client, "connections_percent", 80)
        assert values["worker_processes"] == 1
        assert values["connections_max"] == 256
        assert {finding.symptom for finding in judge(await measure(client, client.resource), client.resource)} >= {"connections_high"}
        change = await nginx_scale_connections(client, ScaleConnections(worker_connections=1024))
        assert (change.before["worker_connections"], change.after["worker_connections"]) == (256, 1024)
        assert "worker_connections 1024" in docker("exec", box.name, "cat", "/etc/nginx/nginx.conf")
        await nginx_clear_connections(client, ClearConnections(drain_seconds=0))
        assert "shutting down" not in docker("top", box.name)
    info: dict[str, Any] = (await nginx_info(client, NoArgs())).after
    assert info["version"].startswith("1.")
    assert info["directives"]["worker_connections"] == "1024"
    await nginx_scale_connections(client, ScaleConnections.model_validate(change.undo))
    assert (box.directory / "nginx.conf").read_text() == CONFIGURATION


@pytest.mark.slow
@pytest.mark.docker
async def test_its_configuration_is_tested_and_reverted_and_its_certificate_installed(box: Box, client: NginxClient) -> None:
    await values_once(client, "config_known_good", 1)
    (box.directory / "nginx.conf").write_text(CONFIGURATION.replace("events {", "no_such_directive on;\nevents {"))
    values = (await measure(client, client.resource)).values
    assert 'unknown directive "no_such_directive" in /etc/nginx/nginx.conf:6' in str(values["config_error"])
    report = (await nginx_test(client, NoArgs())).after
    assert (report["passes"], report["loaded"]) == (False, False)
    await nginx_revert_config(client, RevertConfig())
    assert (box.directory / "nginx.conf").read_text() == CONFIGURATION
    docker("exec", box.name, "nginx", "-t", "-q")
    change = await nginx_install_certificate(client, InstallCertificate())
    assert change.after["served"] == change.after["installed"] != change.before["served"]
    assert (await measure(client, client.resource)).values["page_ok"] is True
    back = await nginx_install_certificate(client, InstallCertificate.model_validate(change.undo))
    assert back.after["served"] == change.before["served"]


@pytest.mark.slow
@pytest.mark.docker
async def test_files_that_are_not_shared_are_left_alone(box: Box, client: NginxClient) -> None:
    await client.require_processes()
    assert client.shared_path("/etc/nginx/tls/shop.key") == client.shared_path("tls/shop.key") == box.directory / "tls" / "shop.key"
    with pytest.raises(NotApplicable, match="is not below the directory of the configuration"):
        client.shared_path("/etc/ssl/private/shop.key")


def test_what_is_printed_inside_is_understood() -> None:
    found = parse_inside("a word that the shell said\n" + PRINTED)
    assert found is not None
    processes, title = found
    assert (processes.master, title) == ((1, 4711), "nginx: master process nginx -g daemon off;")
    assert [(worker.pid, worker.state, worker.open_files) for worker in processes.workers] == [(7, "serving", 1024), (8, "stopped", None)]
    assert (processes.connections, processes.open_files) == (42, (1024, 524288))
    assert parse_inside("established 3\n") is None
