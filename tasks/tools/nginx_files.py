"""Tools for the files that Nginx serves with: its certificate, and the modes of what it reads."""

import asyncio
import os
import ssl
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, JsonValue

from blocks.schema import Kind, Risk
from tasks.clients.certificates import read_certificate, why_unusable
from tasks.clients.config_file import ConfigFile, Content, discard
from tasks.clients.nginx import NginxClient
from tasks.clients.nginx_configuration import REPLACED
from tasks.clients.nginx_loading import digest
from tasks.core.declare import ToolArgs, tool
from tasks.core.errors import EvenkeelError, NotApplicable, ToolFailed
from tasks.core.models import Change, Observation
from tasks.core.nginx_config import ConfigError, certificate_paths

HANDSHAKE_SECONDS = 2.0


class InstallCertificate(ToolArgs):
    """Arguments of nginx_install_certificate."""

    take_back: str = Field("", max_length=16, description="Digest of a certificate that was replaced, to put it back; empty: install.")


class RestoreMode(ToolArgs):
    """Arguments of nginx_restore_mode."""

    path: str = Field(max_length=4096, description="A file or directory whose mode the inventory declares.")
    mode: str = Field(
        "", max_length=4, description="To take it back: octal, and allowing no more than the declared mode; empty: the declared."
    )


Pair = tuple[tuple[ConfigFile, Content], tuple[ConfigFile, Content]]
"""The installed certificate and its key."""


def _puts_back_by_hand(args: Mapping[str, JsonValue], _observation: Observation) -> str:
    return "the certificate with one that a remediation has replaced" if args.get("take_back") else ""


def _was_not_measured(args: Mapping[str, JsonValue], observation: Observation) -> str:
    wrong = observation.reading.values.get("wrong_modes")
    if args.get("mode"):
        return f"{args.get('path')} with another mode than the declared"
    return "" if isinstance(wrong, dict) and args.get("path") in wrong else f"{args.get('path')}, whose mode was not measured to be wrong"


@tool(
    service=Kind.NGINX,
    risk=Risk.REVERSIBLE,
    undo="nginx_install_certificate",
    title="Install the valid certificate",
    timeout_seconds=25,
    symptoms={"certificate_expired"},
    aim=_puts_back_by_hand,
)
async def nginx_install_certificate(client: NginxClient, args: InstallCertificate) -> Change:
    """Install the declared certificate and key, once they are found valid, and load them."""
    await client.require_processes()
    async with client.config_file().locked():
        before = await client.require_processes()
        pair = _installed(client)
        (certificate, old), (key, old_key) = pair
        texts = _replaced(client, pair, args.take_back) if args.take_back else _declared(client)
        if texts == (old.text, old_key.text):
            raise NotApplicable(f"{client.resource.name}: this certificate is installed already")
        state = await _certificate_state(client, old)
        certificate.keep(REPLACED, old)
        key.keep(REPLACED, old_key)
        _write(pair, texts)
        try:
            await client.check_config()
            await client.load_config(before)
        except EvenkeelError:
            _write(((certificate, certificate.read()), (key, key.read())), (old.text, old_key.text))
            raise
        now = certificate.read()
    undo: dict[str, JsonValue] = {"take_back": digest(old.text)}
    return Change(before=state, after=await _certificate_state(client, now), undo=undo)


@tool(
    service=Kind.NGINX,
    risk=Risk.REVERSIBLE,
    undo="nginx_restore_mode",
    title="Restore a file's mode",
    symptoms={"page_forbidden"},
    aim=_was_not_measured,
)
async def nginx_restore_mode(client: NginxClient, args: RestoreMode) -> Change:
    """Give a file or directory exactly the mode that the inventory declares for it."""
    name, declared = client.resource.name, client.resource.nginx.modes.get(args.path)
    if declared is None:
        raise NotApplicable(f"{name}: {args.path} is not among nginx.modes of the inventory: {sorted(client.resource.nginx.modes)}")
    wanted = int(declared, 8)
    if args.mode:
        wanted = _narrower(args.mode, wanted)
    path = Path(args.path)
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise NotApplicable(f"{name}: {path} is a link; declare what it leads to")
        old = stat.S_IMODE(found.st_mode)
        if old == wanted:
            raise NotApplicable(f"{name}: {path} has the mode {old:04o} already")
        path.chmod(wanted)
        new = stat.S_IMODE(path.lstat().st_mode)
    except OSError as error:
        raise ToolFailed(f"{name}: the mode of {path} can't be changed ({error.strerror}); nothing was changed") from error
    is_narrower = old & ~int(declared, 8) == 0
    return Change(
        before={"path": args.path, "mode": f"{old:04o}"},
        after={"path": args.path, "mode": f"{new:04o}"},
        undo={"path": args.path, "mode": f"{old:04o}"} if is_narrower else None,
    )


def _narrower(mode: str, declared: int) -> int:
    try:
        wanted = int(mode, 8)
    except ValueError as error:
        raise NotApplicable(f"mode: {mode!r} is no octal number") from error
    if wanted & ~declared:
        raise NotApplicable(f"mode: {mode} allows more than the declared {declared:04o}")
    return wanted


def _installed(client: NginxClient) -> Pair:
    try:
        paths = certificate_paths(client.config_file().read().text)
    except ConfigError as error:
        raise NotApplicable(f"{client.resource.name}: {error}") from error
    certificate, key = (ConfigFile(Path(os.path.realpath(client.shared_path(path)))) for path in paths)
    return (certificate, certificate.read()), (key, key.read())


def _declared(client: NginxClient) -> tuple[str, str]:
    name, declared = client.resource.name, client.resource.nginx.certificate
    if declared is None:
        raise NotApplicable(f"{name}: the inventory declares no nginx.certificate; add it to let it be installed")
    certificate, key = ConfigFile(Path(declared.certificate)).read().text, ConfigFile(Path(declared.key)).read().text
    host = urlsplit(client.resource.address).hostname or ""
    reason = why_unusable(_bytes(certificate), _bytes(key), host, datetime.now(UTC))
    if reason is not None:
        raise NotApplicable(f"{name}: {declared.certificate} is not installed: {reason}")
    return certificate, key


def _replaced(client: NginxClient, pair: Pair, wanted: str) -> tuple[str, str]:
    (certificate, _), (key, _) = pair
    texts = certificate.kept(REPLACED), key.kept(REPLACED)
    if texts[0] is None or texts[1] is None or digest(texts[0]) != wanted:
        raise NotApplicable(f"{client.resource.name}: no replaced certificate with the digest {wanted!r} is kept")
    return texts[0], texts[1]


def _write(pair: Pair, texts: tuple[str, str]) -> None:
    """Put both in place. What is loaded meanwhile, by somebody else, would be refused by Nginx, which goes on with the old pair."""
    drafts = [(file, file.draft(text, content)) for (file, content), text in zip(pair, texts, strict=True)]
    try:
        for file, draft in drafts:
            file.put(draft)
    finally:
        for _, draft in drafts:
            discard(draft)


async def _certificate_state(client: NginxClient, content: Content) -> dict[str, JsonValue]:
    """The installed certificate, and the one that visitors get."""
    try:
        facts = read_certificate(_bytes(content.text))
    except ValueError as error:
        return {"installed": None, "error": str(error)[:200], "served": await _served(client)}
    return {"installed": facts.fingerprint, "valid_until": facts.not_after.isoformat(), "served": await _served(client)}


async def _served(client: NginxClient) -> str | None:
    """Fingerprint of the certificate that the address shows; None where it is no https address or shows none."""
    url = urlsplit(client.resource.address)
    if url.scheme != "https" or url.hostname is None:
        return None
    address = (url.hostname, url.port or 443)
    try:
        pem = await asyncio.to_thread(ssl.get_server_certificate, address, timeout=HANDSHAKE_SECONDS)
    except OSError:
        return None  # a TLS error or a time-out is one, too
    return read_certificate(pem.encode()).fingerprint


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
