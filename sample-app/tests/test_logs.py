"""The log's lines and their rate limit, on a handler of the test's own."""

from __future__ import annotations

import io
import json
import logging

import pytest
from shop_servers import wait_until

from shop.logs import JsonLine, RateLimit


@pytest.fixture
def written(request: pytest.FixtureRequest) -> tuple[logging.Logger, io.StringIO]:
    """A logger and what it writes, with a rate limit of an hour."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLine())
    handler.addFilter(RateLimit(seconds=3600))
    logger = logging.Logger(request.node.name)
    logger.addHandler(handler)
    return logger, stream


def test_one_line_even_for_a_text_of_many(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    logger.error("%s unavailable: %s", "database", "first\nsecond")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "database unavailable: first\nsecond"
    assert json.loads(line)["level"] == "ERROR"


def test_a_message_that_repeats_is_written_once(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    for reason in ("refused", "refused", "timeout"):
        logger.error("unavailable: %s", reason)
    logger.error("something else")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["unavailable: refused", "something else"]


def test_the_next_line_tells_what_was_left_out() -> None:
    limit = RateLimit(seconds=0.05)
    first, second, third = (logging.LogRecord("shop", logging.ERROR, "", 1, "away", None, None) for _ in range(3))
    assert limit.filter(first)
    assert "left_out" not in json.loads(JsonLine().format(first))
    assert not limit.filter(second)
    wait_until(lambda: limit.filter(third), 2, "the limit over")
    assert json.loads(JsonLine().format(third))["left_out"] >= 1
