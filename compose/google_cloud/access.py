"""Who calls: service accounts with their keys, the tokens made for them, and what each of them may do."""

import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from compose.description import write_private
from compose.google_cloud.refusals import Refused, denied, unauthenticated
from compose.google_cloud.world import CloudIdentity, World

TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
SCOPES = {"iamcredentials.googleapis.com": {CLOUD_PLATFORM, "https://www.googleapis.com/auth/iam"}}
"""Hosts for which another scope will do; google-auth impersonates with that one."""
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFE_SECONDS = 3600
CLOCK_SKEW_SECONDS = 10


class GrantRefused(Exception):
    """The token endpoint's refusal: OAuth's error and its description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass
class Identity:
    """One service account."""

    email: str
    described: CloudIdentity
    key_id: str
    public_key: rsa.RSAPublicKey
    permissions: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Token:
    """An access token that the simulator made."""

    email: str
    scopes: frozenset[str]
    expires_at: float


class Access:
    """The project's identities. Keys are kept in DIR/keys from one start to the next."""

    def __init__(self, world: World, directory: Path) -> None:
        self.key_paths: dict[str, Path] = {}
        self.identities: dict[str, Identity] = {}
        self._world = world
        self._tokens: dict[str, Token] = {}
        self._seen: set[str] = set()
        self._revoked: set[str] = set()
        keys = directory / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        for described in world.identities:
            path = keys / f"{described.name}.json"
            email = f"{described.name}@{world.project}.iam.gserviceaccount.com"
            if not path.exists():
                write_private(path, json.dumps(_new_key(world.project, email), indent=2) + "\n")
            key = json.loads(path.read_text(encoding="utf-8"))
            private = load_pem_private_key(key["private_key"].encode(), password=None)
            assert isinstance(private, rsa.RSAPrivateKey)
            self.key_paths[described.name] = path
            self.identities[email] = Identity(email, described, key["private_key_id"], private.public_key())
        self.restore()

    def restore(self) -> None:
        """Every identity has its world's permissions, and no token is revoked."""
        self._revoked.clear()
        for identity in self.identities.values():
            identity.permissions = set(identity.described.permissions)

    def named(self, name: str) -> Identity:
        """By its short name. KeyError where the world has none such."""
        return next(one for one in self.identities.values() if one.described.name == name)

    def exchange(self, grant: str, assertion: str) -> dict[str, Any]:
        """An access token for a signed assertion (RFC 7523). GrantRefused as Google words it."""
        if grant != JWT_GRANT:
            raise GrantRefused("unsupported_grant_type", f"Invalid grant_type: {grant}")
        claims = self._verified(assertion, TOKEN_URI)
        scopes = str(claims.get("scope", "")).split()
        if not scopes:
            raise GrantRefused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return self.mint(claims["iss"], frozenset(scopes))

    def mint(self, email: str, scopes: frozenset[str], seconds: int = LIFE_SECONDS) -> dict[str, Any]:
        """A new token, as OAuth answers it."""
        value = f"ya29.{secrets.token_urlsafe(32)}"
        self._tokens[value] = Token(email, scopes, time.time() + seconds)
        return {"access_token": value, "expires_in": seconds, "token_type": "Bearer"}

    def revoke_all(self) -> None:
        """No token that was used or made until now is valid from here on."""
        self._revoked |= self._seen | set(self._tokens)

    def caller(self, authorization: str, host: str) -> Identity:
        """Who sends this header to this host: a token from here, or a JWT that the caller signed itself. Refused with 401 or 403."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer" or not value:
            raise unauthenticated("no bearer token")
        self._seen.add(value)
        if value in self._revoked:
            raise unauthenticated("the token was revoked")
        if value in self._tokens:
            token = self._tokens[value]
            if token.expires_at < time.time():
                raise unauthenticated("the token has expired")
            scopes, email = token.scopes, token.email
        else:
            try:
                claims = self._verified(value, None)
            except GrantRefused as refusal:
                raise unauthenticated(refusal.description) from refusal
            email = claims["iss"]
            scopes = frozenset(str(claims.get("scope", "")).split())
            if claims.get("aud") == f"https://{host}/":
                scopes |= {CLOUD_PLATFORM}
        if not scopes & SCOPES.get(host, {CLOUD_PLATFORM}):
            raise Refused(403, "Request had insufficient authentication scopes.", reason="ACCESS_TOKEN_SCOPE_INSUFFICIENT", details={})
        return self.identities[email]

    def require(self, identity: Identity, api: str, permission: str, resource: str) -> None:
        """Refused with the API's own 403 where the identity lacks the permission."""
        if permission not in identity.permissions:
            raise denied(api, permission, resource)

    def impersonated(self, identity: Identity, email: str) -> Identity:
        """The identity for which another one may make tokens. Refused where it may not, or where there is none such."""
        names = {one.email for one in self.identities.values() if one.described.name in identity.described.may_impersonate}
        if email not in names:
            raise denied("iamcredentials", "iam.serviceAccounts.getAccessToken", f"projects/-/serviceAccounts/{email}")
        return self.identities[email]

    def _verified(self, signed: str, audience: str | None) -> dict[str, Any]:
        """The claims of a JWT that one of the service accounts signed and that is valid now."""
        try:
            claimed = jwt.decode(signed, options={"verify_signature": False})
            key_id = jwt.get_unverified_header(signed).get("kid")
        except jwt.InvalidTokenError as error:
            raise GrantRefused("invalid_grant", "Invalid JWT: not well-formed.") from error
        identity = self.identities.get(str(claimed.get("iss")))
        if identity is None:
            raise GrantRefused("invalid_grant", "Invalid grant: account not found")
        if key_id != identity.key_id:
            raise GrantRefused("invalid_grant", "Invalid JWT Signature.")
        try:
            claims: dict[str, Any] = jwt.decode(
                signed,
                identity.public_key,
                algorithms=["RS256"],
                audience=audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"verify_aud": audience is not None, "require": ["iss", "iat", "exp"]},
            )
        except jwt.InvalidSignatureError as error:
            raise GrantRefused("invalid_grant", "Invalid JWT Signature.") from error
        except jwt.InvalidTokenError as error:
            raise GrantRefused("invalid_grant", f"Invalid JWT: {error}.") from error
        if claims["exp"] - claims["iat"] > LIFE_SECONDS:
            raise GrantRefused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
        return claims


def _new_key(project: str, email: str) -> dict[str, str]:
    """A service account key as the console gives it out."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "type": "service_account",
        "project_id": project,
        "private_key_id": secrets.token_hex(20),
        "private_key": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii"),
        "client_email": email,
        "client_id": str(10**20 + secrets.randbelow(10**20)),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": TOKEN_URI,
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": f"https://www.googleapis.com/robot/v1/metadata/x509/{email.replace('@', '%40')}",
        "universe_domain": "googleapis.com",
    }
