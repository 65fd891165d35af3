"""A certificate and its key in PEM: what they say, and whether visitors would accept them."""

import ipaddress
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


@dataclass(frozen=True)
class Facts:
    """What a certificate says."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    """DNS names and addresses that it is for."""
    fingerprint: str
    """SHA-256, in hexadecimal."""


def read_certificate(pem: bytes) -> Facts:
    """The first certificate; ValueError where there is none."""
    return _facts(x509.load_pem_x509_certificates(pem)[0])


def why_unusable(certificate: bytes, key: bytes, host: str, now: datetime) -> str | None:
    """What would keep visitors of a host from accepting the pair, or None. Its issuer is not looked at."""
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        return f"can't be read: {error}"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        return "the key is not the certificate's"
    facts = _facts(first)
    if not facts.not_before <= now < facts.not_after:
        return f"it is valid from {facts.not_before.isoformat()} to {facts.not_after.isoformat()}"
    if not any(_covers(name, host) for name in facts.names):
        return f"it is for {', '.join(facts.names) or 'no name'}, not for {host}"
    return None


def _facts(certificate: x509.Certificate) -> Facts:
    names: list[str] = []
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += alternative.get_values_for_type(x509.DNSName)
        names += [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        pass  # browsers no longer take the subject's common name for one
    return Facts(
        certificate.not_valid_before_utc, certificate.not_valid_after_utc, tuple(names), certificate.fingerprint(hashes.SHA256()).hex()
    )


def _covers(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        one, other = name.lower().rstrip("."), host.lower().rstrip(".")
        return one == other or (one.startswith("*.") and one[1:] == other[other.find(".") :])
