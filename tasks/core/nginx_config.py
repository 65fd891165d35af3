"""Read and edit directives of an Nginx configuration's text; every byte that is not the edited value stays as it is.

The grammar is the one of Nginx's own reader (ngx_conf_read_token). Parsers that print a configuration anew lose its layout.
"""

import re
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
