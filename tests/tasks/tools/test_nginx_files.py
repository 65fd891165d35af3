"""nginx_install_certificate and nginx_restore_mode on a real Nginx; effects are read by handshakes, the page and the file system."""

import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from blocks.nginx_declared import CertificateFiles, NginxDeclared
from compose.certificates import write_certificates
from compose.description import LabDescription
from compose.web import obeys_modes
from tasks.clients.nginx import NginxClient
from tasks.core.errors import NotApplicable, ProbeBroken, ToolFailed, Unreachable
from tasks.core.nginx_judgement import judge
from tasks.probes.nginx import measure
from tasks.tools.nginx_files import InstallCertificate, RestoreMode, nginx_install_certificate, nginx_restore_mode
from tests.tasks.nginx_under_test import NginxUnderTest, nginx_under_test


@pytest.fixture
async def nginx(fresh_web: LabDescription) -> AsyncIterator[NginxUnderTest]:
    tls = fresh_web.web.tls
    before = {path: path.read_bytes() for path in tls.iterdir()}
    async with nginx_under_test(fresh_web) as found:
        yield found
        for path, content in before.items():
            path.write_bytes(content)
        (fresh_web.web.web_root / "static").chmod(0o755)


def declared(nginx: NginxUnderTest, name: str = "issued") -> NginxDeclared:
    tls = nginx.lab.web.tls
    return NginxDeclared(
        pages=("/static/shop.css",),
        certificate=CertificateFiles(certificate=str(tls / f"{name}.crt"), key=str(tls / f"{name}.key")),
        ca_path=str(tls / "ca.crt"),
        modes={str(nginx.lab.web.web_root / "static"): "0755"},
    )


def over_tls(under_test: NginxUnderTest, /, **fields: Any) -> NginxClient:
    return under_test.client(**{"address": under_test.lab.web.tls_url, "nginx": declared(under_test), **fields})


def served(nginx: NginxUnderTest) -> str:
    return ssl.get_server_certificate((nginx.lab.web.host, nginx.lab.web.tls_port), timeout=5)


def pem(nginx: NginxUnderTest, name: str) -> str:
    return (nginx.lab.web.tls / f"{name}.crt").read_text()


async def symptoms(client: NginxClient) -> list[str]:
    return [finding.symptom for finding in judge(await measure(client, client.resource), client.resource)]


async def test_the_declared_certificate_is_installed_served_and_taken_back(nginx: NginxUnderTest) -> None:
    client, old, new = over_tls(nginx), pem(nginx, "shop"), pem(nginx, "issued")
    master = nginx.master().pid
    assert served(nginx) == old
    change = await nginx_install_certificate(client, InstallCertificate())
    assert served(nginx) == pem(nginx, "shop") == new
    assert nginx.master().pid == master
    assert change.before["served"] == change.before["installed"] != change.after["installed"] == change.after["served"]
    assert stat.S_IMODE((nginx.lab.web.tls / "shop.key").stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in change.model_dump_json()
    assert await symptoms(client) == []
    with pytest.raises(NotApplicable, match="is installed already"):
        await nginx_install_certificate(client, InstallCertificate())
    await nginx_install_certificate(client, InstallCertificate.model_validate(change.undo))
    assert served(nginx) == old
    with pytest.raises(NotApplicable, match="no replaced certificate with the digest '0123'"):
        await nginx_install_certificate(client, InstallCertificate(take_back="0123"))


async def test_a_certificate_that_visitors_would_refuse_is_not_installed(nginx: NginxUnderTest, tmp_path: Path) -> None:
    write_certificates(tmp_path, "10.0.0.1")
    tls, old = nginx.lab.web.tls, pem(nginx, "shop")
    other = NginxDeclared(certificate=CertificateFiles(certificate=str(tmp_path / "issued.crt"), key=str(tmp_path / "issued.key")))
    mixed = NginxDeclared(certificate=CertificateFiles(certificate=str(tls / "issued.crt"), key=str(tmp_path / "issued.key")))
    unread = NginxDeclared(certificate=CertificateFiles(certificate=str(tls / "issued.key"), key=str(tls / "issued.key")))
    for one, why in (
        (other, "it is for 10.0.0.1, not for 127.0.0.1"),
        (mixed, "the key is not the certificate's"),
        (unread, "can't be read"),
        (NginxDeclared(), "declares no nginx.certificate"),
    ):
        with pytest.raises(NotApplicable, match=why):
            await nginx_install_certificate(over_tls(nginx, nginx=one), InstallCertificate())
    assert served(nginx) == pem(nginx, "shop") == old


async def test_what_nginx_refuses_to_load_is_put_back(nginx: NginxUnderTest) -> None:
    old = pem(nginx, "shop")
    nginx.config_path.write_bytes(nginx.baseline.replace(b"notice;", b"notice;\nno_such_directive on;"))
    with pytest.raises(ToolFailed, match="no_such_directive"):
        await nginx_install_certificate(over_tls(nginx), InstallCertificate())
    assert served(nginx) == pem(nginx, "shop") == old


async def test_a_certificate_for_another_or_of_a_stranger_is_no_expired_one(nginx: NginxUnderTest, tmp_path: Path) -> None:
    write_certificates(tmp_path, nginx.lab.web.host)
    stranger = over_tls(nginx, nginx=NginxDeclared(ca_path=str(tmp_path / "ca.crt")))
    reading = await measure(stranger, stranger.resource)
    assert (reading.values["page_error"], reading.values["certificate_error"]) == ("tls", "not trusted")
    assert await symptoms(stranger) == ["page_failing"]
    for path in (tmp_path / "none.crt", tmp_path / "ca.key"):
        with pytest.raises(ProbeBroken, match=r"nginx\.ca_path: no certificates can be read from"):
            over_tls(nginx, nginx=NginxDeclared(ca_path=str(path)))


async def test_exactly_the_declared_mode_is_restored_and_taken_back(nginx: NginxUnderTest) -> None:
    path, client = nginx.lab.web.web_root / "static", over_tls(nginx)
    path.chmod(0)
    if obeys_modes(nginx.lab):
        assert await symptoms(client) == ["page_forbidden"]
        assert (await nginx.page("/static/shop.css")).status_code == 403
    change = await nginx_restore_mode(client, RestoreMode(path=str(path)))
    assert (change.before["mode"], change.after["mode"]) == ("0000", "0755")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert (await nginx.page("/static/shop.css")).status_code == 200
    with pytest.raises(NotApplicable, match="has the mode 0755 already"):
        await nginx_restore_mode(client, RestoreMode(path=str(path)))
    await nginx_restore_mode(client, RestoreMode.model_validate(change.undo))
    assert stat.S_IMODE(path.stat().st_mode) == 0
    path.chmod(0o777)
    assert (await nginx_restore_mode(client, RestoreMode(path=str(path)))).undo is None, "nothing is opened again"


async def test_no_other_path_and_no_wider_mode_is_set(nginx: NginxUnderTest, tmp_path: Path) -> None:
    path, client = nginx.lab.web.web_root / "static", over_tls(nginx)
    for args, why in (
        (RestoreMode(path=str(tmp_path)), "is not among nginx.modes"),
        (RestoreMode(path=str(path), mode="0777"), "allows more than the declared 0755"),
        (RestoreMode(path=str(path), mode="rwx"), "is no octal number"),
    ):
        with pytest.raises(NotApplicable, match=why):
            await nginx_restore_mode(client, args)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    link = tmp_path / "link"
    link.symlink_to(path)
    gone = tmp_path / "gone"
    other = over_tls(nginx, nginx=NginxDeclared(modes={str(link): "0700", str(gone): "0700"}))
    with pytest.raises(NotApplicable, match="is a link"):
        await nginx_restore_mode(other, RestoreMode(path=str(link)))
    with pytest.raises(ToolFailed, match="No such file"):
        await nginx_restore_mode(other, RestoreMode(path=str(gone)))


async def test_a_server_that_is_gone_is_told(nginx: NginxUnderTest) -> None:
    old = pem(nginx, "shop")
    unreachable = over_tls(nginx, runtime={"control": str(nginx.config_path.with_name("no.sock")), "service": "web"})
    with pytest.raises(Unreachable):
        await nginx_install_certificate(unreachable, InstallCertificate())
    await nginx.runtime.stop()
    with pytest.raises(NotApplicable, match="no running Nginx is found"):
        await nginx_install_certificate(over_tls(nginx), InstallCertificate())
    assert pem(nginx, "shop") == old
