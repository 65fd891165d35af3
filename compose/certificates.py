"""The lab's own authority, and the certificates that it issues: for the page, and for the hosts of a simulator."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from compose.description import write_private

YEARS = timedelta(days=3650)
LIFE = timedelta(days=365)


def write_certificates(directory: Path, host: str) -> None:
    """Write ca, shop and issued, each .crt and .key, all fresh: one valid certificate for the host in use, and one more to install."""
    directory.mkdir(mode=0o700, exist_ok=True)
    authority, key = _new_authority("Shop Authority")
    _write(directory, "ca", authority, key)
    for file in ("shop", "issued"):
        _write(directory, file, *_issued(authority, key, "shop", x509.IPAddress(ipaddress.ip_address(host))))


def write_domain_certificate(directory: Path, authority: Path, domain: str, file: str) -> None:
    """Write DIRECTORY/FILE.crt and .key for a domain, which may be a wildcard; the authority's ca.crt and ca.key are made when missing."""
    for folder in (directory, authority):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (authority / "ca.key").exists():
        _write(authority, "ca", *_new_authority("Evenkeel Lab Authority"))
    certificate = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    key = load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    _write(directory, file, *_issued(certificate, key, domain, x509.DNSName(domain)))


def _new_authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, key, datetime.now(UTC), YEARS)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _issued(
    authority: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: str, alternative: x509.GeneralName
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), own, datetime.now(UTC), LIFE)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, own


def _builder(name: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(directory / f"{name}.crt", certificate.public_bytes(Encoding.PEM).decode("ascii"))
    write_private(directory / f"{name}.key", pem.decode("ascii"))
