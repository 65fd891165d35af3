"""Faults of the files that Nginx serves with."""

import ssl
import stat
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from blocks.schema import Kind
from tasks.clients.certificates import read_certificate
from tasks.clients.config_file import ConfigFile
from tasks.clients.nginx import NginxClient
from tasks.core.declare import scenario
from tasks.core.nginx_config import certificate_paths
from tasks.scenarios.nginx_configuration import load_again, require_pages, write
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed


@scenario(
    title="An expired certificate",
    resource_kind=Kind.NGINX,
    symptoms={"certificate_expired"},
    forbidden_tools={"nginx_restart", "nginx_revert_config"},
    catalogue=(33,),
)
async def nginx_expired_certificate(stage: Stage) -> AsyncGenerator[None]:
    """Install a certificate of the lab's authority that ended yesterday, and load it."""
    client: NginxClient = stage.client()
    declared = stage.resource.nginx.certificate
    if declared is None or stage.resource.nginx.ca_path is None or not stage.resource.address.startswith("https:"):
        raise InjectionFailedError(f"resources.{stage.resource.name}.nginx: this fault needs an https address, certificate and ca_path")
    await client.require_processes()
    file = ConfigFile(client.shared_path(certificate_paths(client.config_file().read().text)[0]))
    original = file.read()
    key = ConfigFile(client.shared_path(certificate_paths(client.config_file().read().text)[1]))
    original_key = key.read()
    try:
        await write(file, _ended_yesterday(original.text.encode(), Path(stage.resource.nginx.ca_path)))
        await client.load_config(await client.require_processes())
        yield
        wanted = read_certificate(Path(declared.certificate).read_bytes()).fingerprint
        url = httpx.URL(stage.resource.address)
        served = read_certificate(ssl.get_server_certificate((url.host, url.port or 443), timeout=2).encode()).fingerprint
        if served != wanted:
            raise Unhealed(f"{stage.resource.name}: the served certificate is not the declared one")
        await require_pages(stage)
    finally:
        await write(file, original.text)
        await write(key, original_key.text)
        await load_again(stage)


@scenario(
    title="Files that Nginx may not read",
    resource_kind=Kind.NGINX,
    symptoms={"page_forbidden"},
    forbidden_tools={"nginx_restart", "nginx_reload", "nginx_revert_config"},
    catalogue=(35,),
)
async def nginx_unreadable_files(stage: Stage) -> AsyncGenerator[None]:
    """Take every right from the directory of the files that Nginx serves itself."""
    declared = stage.resource.nginx.modes
    if not declared:
        raise InjectionFailedError(f"resources.{stage.resource.name}.nginx.modes: this fault needs one, and the inventory declares none")
    path, mode = Path(next(iter(declared))), int(next(iter(declared.values())), 8)
    try:
        path.chmod(0)
        yield
        found = stat.S_IMODE(path.stat().st_mode)
        if found != mode:
            raise Unhealed(f"{stage.resource.name}: {path} has the mode {found:04o}, not {mode:04o}")
        await require_pages(stage)
    finally:
        path.chmod(mode)


def _ended_yesterday(certificate: bytes, ca_path: Path) -> str:
    """The same certificate for an earlier time, signed by the lab's authority, which keeps its key beside its own certificate."""
    old = x509.load_pem_x509_certificates(certificate)[0]
    authority = x509.load_pem_x509_certificate(ca_path.read_bytes())
    signer = load_pem_private_key(ca_path.with_suffix(".key").read_bytes(), password=None)
    if not isinstance(signer, EllipticCurvePrivateKey):
        raise InjectionFailedError(f"{ca_path.with_suffix('.key')}: no elliptic curve's key")
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=91))
        .not_valid_after(now - timedelta(days=1))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")
