"""What a Redis configuration file and log say, from their text alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.redis_config import accepts, broken_aof, digest, drift, settings_of, user_rules

TEXT = r"""
# Written by hand.
dir "/var/lib/redis data"
DBFILENAME 'dump.rdb'
maxclients 100
maxclients 200
save 3600 1
save 300 100
appendfilename "a\x2db\"c"
user default off
user shop on >plain ~* +@all
user shop on #{digest} ~* &* +@all -@admin
"""


def test_the_last_line_counts_and_save_points_add_up() -> None:
    settings = settings_of(TEXT)

    assert settings == {
        "dir": "/var/lib/redis data",
        "dbfilename": "dump.rdb",
        "maxclients": "200",
        "save": "3600 1 300 100",
        "appendfilename": 'a-b"c',
    }


def test_what_differs_from_the_file_drifts_and_what_it_leaves_out_does_not() -> None:
    running = {"dir": "/var/lib/redis data/", "maxclients": "12", "appendonly": "yes", "save": "3600 1  300 100"}

    assert drift(TEXT, running) == {"maxclients": {"now": "12", "declared": "200"}}
    assert drift("", running) == {}


def test_a_users_last_line_counts_and_takes_plain_and_digested_passwords() -> None:
    rules = user_rules(TEXT.format(digest=digest("s3cret")), "shop")

    assert rules is not None
    assert rules[0] == "on"
    assert accepts(rules, "s3cret")
    assert not accepts(rules, "plain")
    assert accepts([">plain"], "plain")
    assert user_rules(TEXT, "nobody") is None


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (
            ["# Unexpected end of file reading the append only file appendonly.aof.1.incr.aof. You can: 1) Make a backup"],
            "appendonly.aof.1.incr.aof",
        ),
        (["# Bad file format reading the append only file appendonly.aof: make a backup of your AOF file"], "appendonly.aof"),
        (
            ["# Bad file format reading the append only file a.aof: make", "* oO0OoO0OoO0Oo Valkey is starting oO0OoO0OoO0Oo", "* Ready"],
            None,
        ),
        ([], None),
    ],
)
def test_a_broken_file_is_told_of_the_last_start_only(lines: list[str], name: str | None) -> None:
    assert broken_aof(lines) == name


@given(st.text(), st.dictionaries(st.sampled_from(["dir", "save", "maxclients"]), st.text()))
def test_whatever_the_text_nothing_fails(text: str, running: dict[str, str]) -> None:
    assert drift(text, running).keys() <= running.keys()
    user_rules(text, "shop")
    broken_aof(text.splitlines())
