"""Read and edit directives of an Nginx configuration's text; every byte that is not the edited value stays as it is.

The grammar is the one of Nginx's own reader (ngx_conf_read_token). Parsers that print a configuration anew lose its layout.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

DEFAULT_WORKER_CONNECTIONS = 512  # https://nginx.org/en/docs/ngx_core_module.html#worker_connections

Block = tuple[str, ...]
"""Names of the enclosing blocks from the outside in; empty for the main level."""

MAIN: Block = ()
EVENTS: Block = ("events",)

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<comment>\#[^\n]*)
      | (?P<mark>[;{}])
      | (?P<quoted>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*')
      | (?P<bare>(?:\\.|\$\{|[^ \t\r\n;{}\\"'\#])(?:\\.|\$\{|[^ \t\r\n;{\\])*)""",
    re.VERBOSE | re.DOTALL,
)
_AFTER_QUOTE = frozenset(" \t\r\n;{)")
_ESCAPED = re.compile(r"""\\([\\"'])""")
_BARE_VALUE = re.compile(r"[\w.:/-]+")


class ConfigError(ValueError):
    """The text is no configuration that can be read or edited here; the message names the place."""


@dataclass(frozen=True)
class Directive:
    """One directive: where it stands, and its arguments without their quotes."""

    name: str
    args: tuple[str, ...]
    block: Block
    opens: bool
    """Whether it opens a block."""
    start: int
    args_start: int
    args_end: int
    end: int
    """Offset after its `;` or `{`."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _error(text, position, "a quote or a backslash that does not end")
        kind, position = match.lastgroup, match.end()
        if kind == "quoted" and text[position : position + 1] not in _AFTER_QUOTE:
            raise _error(text, position, "text right after a closing quote")
        if kind in {"space", "comment"}:
            continue
        yield _Token(kind, match.group(), match.start(), position)


def directives(text: str) -> Iterator[Directive]:
    """Every directive in order, read as far as the caller goes. ConfigError where the text breaks the grammar."""
    block: list[str] = []
    words: list[_Token] = []
    for token in _tokens(text):
        if token.kind != "mark":
            words.append(token)
        elif token.text == "}":
            if words or not block:
                raise _error(text, token.start, "an unexpected `}`")
            block.pop()
        else:
            if not words:
                raise _error(text, token.start, f"an unexpected `{token.text}`")
            directive = _directive(words, tuple(block), token)
            yield directive
            words = []
            if directive.opens:
                if directive.name.endswith("_by_lua_block"):
                    raise _error(text, directive.start, "a Lua block, which follows another grammar")
                block.append(directive.name)
    if block or words:
        raise _error(text, len(text), "an unexpected end")


def _directive(words: list[_Token], block: Block, end: _Token) -> Directive:
    name, *args = words
    return Directive(
        name=_value(name),
        args=tuple(_value(word) for word in args),
        block=block,
        opens=end.text == "{",
        start=name.start,
        args_start=args[0].start if args else name.end,
        args_end=args[-1].end if args else name.end,
        end=end.end,
    )


def _value(word: _Token) -> str:
    return _ESCAPED.sub(r"\1", word.text[1:-1] if word.kind == "quoted" else word.text)


def _error(text: str, position: int, what: str) -> ConfigError:
    return ConfigError(f"line {text.count(chr(10), 0, position) + 1}: {what}")


def find(text: str, name: str, block: Block = MAIN) -> Directive | None:
    """The first directive of that name directly in that block, or None."""
    return next((found for found in directives(text) if found.name == name and found.block == block), None)


def with_value(text: str, name: str, value: str, block: Block = MAIN) -> str:
    """The text with the directive's arguments replaced by one value.

    An absent one is added: at the top of its block, and at the main level right before `events`. ConfigError where there is no
    such block.
    """
    if not _BARE_VALUE.fullmatch(value):
        raise ConfigError(f"{name}: {value!r} is no plain value")
    found = find(text, name, block)
    if found is not None:
        gap = "" if found.args else " "
        return text[: found.args_start] + gap + value + text[found.args_end :]
    anchor = find(text, block[-1] if block else "events", block[:-1])
    if anchor is None or not anchor.opens:
        raise ConfigError(f"{name}: there is no `{block[-1] if block else 'events'}` block in this file to add it to")
    if block:
        return text[: anchor.end] + f"\n    {name} {value};" + text[anchor.end :]
    return text[: anchor.start] + f"{name} {value};\n" + text[anchor.start :]


def without(text: str, name: str, block: Block = MAIN) -> str:
    """The text without the directive and the line break after it; the same text where there is none."""
    found = find(text, name, block)
    if found is None:
        return text
    return text[: found.start] + text[found.end :].removeprefix("\n")


def read_number(text: str, name: str, block: Block = MAIN) -> int | None:
    """The directive's value as a whole number; None where it is absent. ConfigError where it is something else."""
    found = find(text, name, block)
    if found is None:
        return None
    if len(found.args) != 1 or not found.args[0].isascii() or not found.args[0].isdigit():
        raise ConfigError(f"{name}: {' '.join(found.args)!r} is no whole number")
    return int(found.args[0])


def read_worker_connections(text: str) -> int:
    """Connections that each worker may hold by this text, Nginx's default where it names none.

    ConfigError where the answer may stand in an included file.
    """
    stated = read_number(text, "worker_connections", EVENTS)
    if stated is not None:
        return stated
    if find(text, "events") is None or find(text, "include", EVENTS) is not None:
        raise ConfigError("worker_connections: not in this file; name the file that holds `events`")
    return DEFAULT_WORKER_CONNECTIONS


def upstream_servers(text: str) -> dict[str, tuple[str, ...]]:
    """Upstream block -> the addresses of its servers, in order."""
    found: dict[str, list[str]] = {}
    for upstream, directive in _servers(text):
        found.setdefault(upstream, []).extend(directive.args[:1])
    return {name: tuple(addresses) for name, addresses in found.items()}


def with_server(text: str, upstream: str, old: str, new: str) -> str:
    """The text with another address for one server of an upstream; its parameters stay. ConfigError where there is no such server."""
    if not _BARE_VALUE.fullmatch(new):
        raise ConfigError(f"server: {new!r} is no plain value")
    for name, directive in _servers(text):
        if name == upstream and directive.args[:1] == (old,):
            quotes = 2 if text[directive.args_start] in "\"'" else 0
            return text[: directive.args_start] + new + text[directive.args_start + len(old) + quotes :]
    raise ConfigError(f"upstream {upstream}: no server {old} in this file")


def _servers(text: str) -> Iterator[tuple[str, Directive]]:
    upstream = ""
    for directive in directives(text):
        if directive.name == "upstream" and directive.opens:
            upstream = " ".join(directive.args)
        elif directive.name == "server" and directive.block[-1:] == ("upstream",):
            yield upstream, directive


def certificate_paths(text: str) -> tuple[str, str]:
    """Certificate and key, as the text names them. ConfigError where it names none, or several."""
    certificates = {directive.args for directive in directives(text) if directive.name == "ssl_certificate"}
    keys = {directive.args for directive in directives(text) if directive.name == "ssl_certificate_key"}
    if len(certificates) != 1 or len(keys) != 1:
        raise ConfigError(f"ssl_certificate: this file names {len(certificates)} certificates and {len(keys)} keys, not one of each")
    paths = (" ".join(certificates.pop()), " ".join(keys.pop()))
    for path in paths:
        if "$" in path or path.startswith(("data:", "engine:", "store:")):
            raise ConfigError(f"ssl_certificate: {path.partition(':')[0]!r} is no path of a file")
    return paths


def differing(text: str, other: str) -> tuple[str, ...]:
    """Which directives differ between two texts, as `http > server > listen`; without their values, some of which are secret."""
    one, two = Counter(_named(text)), Counter(_named(other))
    names = [" > ".join(path) for path, _ in ((one - two) + (two - one))]
    return tuple(dict.fromkeys(names))


def _named(text: str) -> Iterator[tuple[Block, tuple[str, ...]]]:
    for directive in directives(text):
        yield (*directive.block, directive.name), directive.args
