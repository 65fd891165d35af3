"""Taking secrets out of texts and readings before they leave the process or are stored.

Three nets, in this order: every secret that is known by its value, however it is encoded; rules for keys, headers, URLs and private keys;
patterns of vendors' tokens. What is found becomes `[masked]`. Ordinary words and figures stay, so a person can still tell what is wrong.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar, cast
from urllib.parse import unquote

MASK = "[masked]"
TEXTS_KEPT = 4096
KEPT_LENGTH = 100
MIN_SECRET_LENGTH = 6
"""Shorter secrets are not masked by value: they would take ordinary words and figures with them."""

V = TypeVar("V")

# Stands for the mask while rules are at work, so that none of them sees words or brackets in it. Unicode keeps it for internal use.
_HOLE = "\ufdd0"

# Nginx's proxy_pass and the like name an address.
_NO_ADDRESS = "".join(f"(?<!{protocol}_)" for protocol in ("proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached"))
# What a figure may stand for too (a PIN), and what mostly stands before figures when it is no secret (12 tokens).
_STRONG = (
    rf"(?:password|passwd|passphrase|passcode|secret|{_NO_ADDRESS}(?<![a-z])pass|(?<![a-z])pwd(?!=/)|pgpass|auth[_-]?pass|requirepass|(?:master|primary)auth"
    r"|(?:api|access|private|secret|signing|encryption|account|auth|service)[_-]?key(?:[_-]?base)?)"
)
_WEAK = r"(?:token|authorization|cookie|credentials?|(?:php|j|asp\.?net_)?sess(?:ion)?id|x-goog-api-key)"
_KEY = rf"(?:{_STRONG}|{_WEAK})"
_IS_KEY = re.compile(rf"[\w.-]*{_KEY}", re.IGNORECASE)
_IS_STRONG_KEY = re.compile(rf"[\w.-]*{_STRONG}", re.IGNORECASE)

# `\` before a quote: JSON inside of JSON.
_QUOTED = r'"(?:[^"\\\n]|\\.)*(?:"|$)|\'(?:[^\'\\\n]|\\.|\'\')*(?:\'|$)|(?P<escaped>\\{1,8}["\'])(?:(?!(?P=escaped)).)*(?:(?P=escaped)|$)'
_BARE = r"[^\s,;&\"'<>(){}\[\]|](?:[^\s,;&\"']*[^\s,;&\"'<>(){}\[\]|])?"
_KEY_AND_VALUE = re.compile(
    rf"(?P<key>{_KEY})\\{{0,8}}[\"']?\]?[ \t]*(?::=|=>|==?|:)[ \t]*(?P<value>{_QUOTED}|{_BARE})", re.IGNORECASE | re.MULTILINE
)
_YAML_LINE = re.compile(
    rf"^[ \t]*(?:-[ \t]+)?(?P<key>[\w.-]{{0,64}}?{_KEY})[ \t]*:[ \t]+(?![\"'{{\[|>\\]|.*[,;][ \t]*[\w.-]+[ \t]*[:=])(?P<value>\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_HEADER = re.compile(
    r"\b(?:(?:proxy-)?authorization\\{0,8}[\"']?[ \t]*[:=]|(?:set-)?cookie2?\\{0,8}[\"']?:)"
    r"[ \t]*\\{0,8}[\"']?(?P<value>[^\s\"'\\][^\r\n\"'\\]*)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(?:bearer|basic)[ \t]+(?P<value>(?=[^\s\d]*\d|[^\s=]+=)[\w.~+/-]{8,}=*)", re.IGNORECASE)
# Directives and statements that put a blank between name and value.
_SPACED = re.compile(
    r"(?:\b(?:requirepass|masterauth|primaryauth|auth-pass[ \t]+\S+)[\"']?[ \t]+|\bIDENTIFIED[ \t]+(?:WITH[ \t]+\S+[ \t]+)?BY[ \t]+"
    r"|\bPASSWORD[ \t]+E?(?=')|--(?!no-)[\w-]{0,40}?(?:password|passwd|token|secret|api-key)[ \t]+(?!-)"
    r"|\buser[ \t]+\S+[ \t]+(?:on|off|reset)\b[^\r\n>]{0,200}[ \t]>)"
    rf"(?P<value>{_QUOTED}|{_BARE})",
    re.IGNORECASE | re.MULTILINE,
)
_USERINFO = re.compile(r"(?<=://)(?:[^\s/:@\"'<>?#]*:(?=[^\s/\"'<>]+@)|(?=[^\s/:@\"'<>?#]{20,}@))(?P<value>[^\s/\"'<>]+)(?=@)")
_QUERY_KEY = re.compile(r"[?&](?:key|sig|signature|code)=(?P<value>[^\s&#\"'<>]{20,})", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.DOTALL)
_RULES = (_HEADER, _SCHEME, _SPACED, _USERINFO, _QUERY_KEY, _YAML_LINE, _KEY_AND_VALUE)

# What stands for a value, and is none.
_HARMLESS = re.compile(
    r"[\"'\\]*(?:|null|none|nil|true|false|yes|no|on|off|undefined|unset|empty|required|missing|invalid|incorrect|denied|failed|[*?.x-]+"
    r"|\$\d+|%\w|%\(\w+\)s|\$\{\w+\}?|\{\w*\})[\"'\\]*[.,;:]?",
    re.IGNORECASE,
)
_OPENING = re.compile(r"\\{0,8}[\"']")
_FIGURE = re.compile(r"[\"']?-?\d{1,5}(?:\.\d+)?[\"']?")

_OWN_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)?",  # JSON Web Token
        r"\bAIza[\w-]{30,}",  # Google API key
        r"\bya29\.[\w-]{20,}",  # Google access token
        r"\bgithub_pat_\w{22,}",
        r"\bsk-[a-zA-Z0-9][\w-]{20,}",
        r"\bxapp-\d-[\w-]{20,}",
    )
)
_SHORTEST_TOKEN = 12
_LETTERS_OF_TOKENS = re.compile(r"[A-Z0-9]")
_BETWEEN = re.compile(r"[=:\s]")
# Looking for these words is cheap; the rules run only where one of them stands.
_HINTS = (
    *("pass", "pwd", "secret", "key", "masterauth", "primaryauth", "token", "authorization", "cookie", "credential", "sess"),
    *("bearer", "basic", "identified", "user", "://", "?sig", "?code", "&sig", "&code"),
)


class Redactor:
    """Masks secrets in texts and in nested values. Immutable; safe to use from several threads."""

    def __init__(self, secrets: Iterable[str] = (), patterns: Iterable[re.Pattern[str]] = ()) -> None:
        # The longest first: a secret that contains another one goes as a whole.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}, key=lambda one: (-len(one), one))
        self._shortest = min(map(len, self._secrets), default=0)
        self._cores = tuple(core for secret in self._secrets for core in _base64_cores(secret))
        self._patterns = (*_OWN_PATTERNS, *patterns)
        # Most texts come again and again: the names in a reading, and the words that it holds.
        self._known_texts = lru_cache(maxsize=TEXTS_KEPT)(self._redacted)

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def text(self, text: str) -> str:
        """The text without secrets. Redacting it again changes nothing."""
        return self._known_texts(text) if len(text) <= KEPT_LENGTH else self._redacted(text)

    def _redacted(self, text: str) -> str:
        hidden = text.replace(MASK, _HOLE)
        while (less := self._by_pattern(_by_rule(self._by_value(hidden)))) != hidden:
            hidden = less
        return hidden.replace(_HOLE, MASK)

    def known(self, text: str) -> str:
        """The text without the secrets that are known by value; no rule and no pattern applies."""
        return self._by_value(text.replace(MASK, _HOLE)).replace(_HOLE, MASK)

    def value(self, value: V) -> V:
        """The same shape with every text redacted, keys too; all that stands under a key such as `password` is masked."""
        return cast(V, self._walked(value, None))

    def _walked(self, value: Any, key: str | None) -> Any:
        """`key`: what the value stands under, if that names a secret."""
        if isinstance(value, Mapping):
            return self._mapping(value, key)
        if isinstance(value, list | tuple):
            return type(value)(self._walked(item, key) for item in value)
        if key is not None and not isinstance(value, bool) and isinstance(value, str | int | float):
            return value if _is_harmless(str(value), key) else MASK
        return self.text(value) if isinstance(value, str) else value

    def _mapping(self, value: Mapping[Any, Any], key: str | None) -> dict[Any, Any]:
        walked: dict[Any, Any] = {}
        for name, item in value.items():
            shown = self.text(name) if isinstance(name, str) else name
            if shown in walked:
                # Two keys that differed in their secrets alone.
                shown = next(f"{shown} ({number})" for number in range(2, len(value) + 2) if f"{shown} ({number})" not in walked)
            secret = name if isinstance(name, str) and _is_key(name) else key
            walked[shown] = self._walked(item, secret)
        return walked

    # Made when they are first needed: of thousands of secrets it takes seconds.
    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return _spellings(self._secrets)

    @cached_property
    def _escapable(self) -> re.Pattern[str] | None:
        escapable = [secret for secret in self._secrets if _NEVER_ESCAPED.fullmatch(secret) is None]
        return _spellings(escapable) if escapable else None

    def _by_value(self, text: str) -> str:
        if not self._secrets or len(text) < self._shortest:
            return text
        # Looking for a plain secret is cheap, so the pattern of all spellings runs only where there is something.
        plain = any(secret in text for secret in self._secrets)
        if plain or self._is_encoded_in(text):
            text = self._spelled.sub(_HOLE, text)
        elif "\\" in text and self._escapable is not None:
            text = self._escapable.sub(_HOLE, text)
        if any(core in text for core in self._cores):
            text = _BASE64.sub(lambda match: _HOLE if any(core in match[0] for core in self._cores) else match[0], text)
        return text

    def _is_encoded_in(self, text: str) -> bool:
        if "%" not in text and "+" not in text:
            return False
        decoded = unquote(text.replace("+", " "), errors="ignore") + unquote(text, errors="ignore")
        return any(secret in decoded for secret in self._secrets)

    def _by_pattern(self, text: str) -> str:
        if len(text) < _SHORTEST_TOKEN or _LETTERS_OF_TOKENS.search(text) is None:
            return text
        for pattern in self._patterns:
            text = pattern.sub(_masked_token, text)
        return text


@lru_cache(maxsize=TEXTS_KEPT)
def _is_key(name: str) -> bool:
    return _IS_KEY.fullmatch(name) is not None


def _spellings(secrets: list[str]) -> re.Pattern[str]:
    """A pattern of the secrets with each character plain, URL-encoded or escaped as in JSON and SQL."""
    return re.compile("|".join("".join(map(_any_spelling_of, secret)) for secret in secrets))


def _any_spelling_of(letter: str) -> str:
    encoded = "".join(f"%{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(rf"\\{{1,8}}u{units[place : place + 4]}" for place in range(0, len(units), 4))
    return f"(?:(?i:{encoded}|{escaped})|{_SPELLINGS.get(letter, re.escape(letter))})"


# A quote may stand behind several backslashes: JSON inside of JSON.
_SPELLINGS = {
    '"': r'\\{0,8}"',
    "'": r"\\{0,8}'|''",
    "\\": r"(?:\\{4}|\\{2}|\\)",
    "/": r"\\{0,8}/",
    " ": r"[ ]|\+",
    **{control: rf"{control}|\\{{1,8}}{letter}" for control, letter in zip("\b\f\n\r\t", "bfnrt", strict=True)},
}
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9_.-]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+=*")


def _base64_cores(secret: str) -> set[str]:
    """What the secret always looks like in base64 and in hexadecimal, whatever stands before and behind it."""
    raw = secret.encode("utf-8", "surrogatepass")
    cores = {raw.hex(), raw.hex().upper()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        first = (before * 8 + 5) // 6
        last = (before + len(raw)) * 8 // 6
        core = encoded[first:last].decode("ascii")
        cores |= {core, core.replace("+", "-").replace("/", "_")}
    return cores


def _by_rule(text: str) -> str:
    lowered = text.lower()
    if _BETWEEN.search(text) is None or not any(hint in lowered for hint in _HINTS):
        return text
    text = _PEM.sub(_HOLE, text)
    for rule in _RULES:
        text = rule.sub(_masked_value, text)
    return text


def _masked_value(match: re.Match[str]) -> str:
    value, place = match["value"], match.start("value") - match.start()
    if _is_harmless(value, match.groupdict().get("key")):
        return match[0]
    opening = _OPENING.match(value)
    quotes = opening[0] if opening else ""
    closing = quotes if len(value) > len(quotes) and value.endswith(quotes) else ""
    return f"{match[0][:place]}{quotes}{_HOLE}{closing}{match[0][place + len(value) :]}"


def _is_harmless(value: str, key: str | None) -> bool:
    """Whether the value stands for none, or is a plain figure such as a count of tokens. `key`: None where no key names a secret."""
    if value.strip("\"'\\") in {"", _HOLE}:
        return True
    if key is None:
        return False
    return bool(_HARMLESS.fullmatch(value) or (_FIGURE.fullmatch(value) and not _IS_STRONG_KEY.fullmatch(key)))


def _masked_token(match: re.Match[str]) -> str:
    """The mask in place of a token; what the pattern took with it at its ends stays."""
    core = match[0].strip(" \t\r\n\"':=")
    before, _, after = match[0].partition(core)
    return f"{before}{_HOLE}{after}" if core else match[0]
