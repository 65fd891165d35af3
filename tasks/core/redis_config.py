"""What the configuration file of a Redis or Valkey server says, compared with what is in force, and what its log says of a failed start."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Restorable = Literal[
    "dir",
    "dbfilename",
    "save",
    "stop-writes-on-bgsave-error",
    "appendonly",
    "appendfsync",
    "maxclients",
    "timeout",
    "maxmemory-policy",
]
"""Settings that may be brought back to what the configuration file says."""
RESTORABLE: tuple[Restorable, ...] = get_args(Restorable)
REPEATED = {"save"}
"""Directives that may stand on several lines, which CONFIG GET shows as one."""

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\S+')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_STARTING = " is starting "
_BROKEN_AOF = re.compile(r"(?:Unexpected end of file|Bad file format) reading the append only file:? (?P<name>[\w.-]*\w)")


def settings_of(text: str) -> dict[str, str]:
    """Directive in lower case -> its value, the last one where it is repeated. Users (`user ...`) are no settings."""
    found: dict[str, str] = {}
    for name, *words in _directives(text):
        if name == "user":
            continue
        value = " ".join(words)
        found[name] = f"{found[name]} {value}" if name in REPEATED and found.get(name) and value else value
    return found


def drift(text: str, running: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Restorable settings that are not in force as the file says: name -> `now` and `declared`. What the file leaves out never drifts."""
    declared = settings_of(text)
    return {
        name: {"now": running[name], "declared": declared[name]}
        for name in RESTORABLE
        if name in declared and name in running and _plain(name, running[name]) != _plain(name, declared[name])
    }


def user_rules(text: str, username: str) -> tuple[str, ...] | None:
    """The rules of a user's line, as ACL SETUSER takes them; None where the file has no such line."""
    rules: tuple[str, ...] | None = None
    for name, *words in _directives(text):
        if name == "user" and words and words[0] == username:
            rules = tuple(words[1:])
    return rules


def accepts(rules: Iterable[str], password: str) -> bool:
    """Whether rules of a user name this password, plain or by its digest."""
    return bool({f">{password}", f"#{digest(password)}"} & set(rules))


def digest(password: str) -> str:
    """A password as the server keeps it: SHA-256 in hexadecimal."""
    return hashlib.sha256(password.encode()).hexdigest()


def broken_aof(lines: Iterable[str]) -> str | None:
    """Name of the append-only file that the server's last start, as its log tells it, could not read; None: no such thing."""
    found: str | None = None
    for line in lines:
        if _STARTING in line:
            found = None
        elif match := _BROKEN_AOF.search(line):
            found = match["name"]
    return found


def _directives(text: str) -> Iterable[list[str]]:
    for line in text.splitlines():
        words = [_unquoted(word) for word in _WORD.findall(line)]
        if words and not words[0].startswith("#"):
            yield [words[0].lower(), *words[1:]]


def _unquoted(word: str) -> str:
    if len(word) < 2 or word[0] not in "\"'" or word[-1] != word[0]:
        return word
    if word[0] == "'":
        return word[1:-1].replace("\\'", "'")

    def plain(match: re.Match[str]) -> str:
        escape = match[1]
        return chr(int(escape[1:], 16)) if len(escape) == 3 else _ESCAPED.get(escape, escape)

    return _ESCAPE.sub(plain, word[1:-1])


def _plain(name: str, value: str) -> str:
    if name == "dir":
        return value.rstrip("/") or value
    return " ".join(value.split()).lower() if name != "dbfilename" else value
