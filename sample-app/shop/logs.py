"""One JSON object a line on stderr, with a rate limit so that an outage does not flood it."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

REPEAT_SECONDS = 10.0


class RateLimit(logging.Filter):
    """Let each message of each logger through once in `seconds`; the next one carries how many were left out."""

    def __init__(self, seconds: float = REPEAT_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        now = time.monotonic()
        last, left_out = self._last.get(key, (float("-inf"), 0))
        if now - last < self._seconds:
            self._last[key] = (last, left_out + 1)
            return False
        self._last[key] = (now, 0)
        record.left_out = left_out
        return True


class JsonLine(logging.Formatter):
    """A record as one line: time (UTC, ISO 8601), level, logger, message, and what was left out since the last."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if left_out := getattr(record, "left_out", 0):
            line["left_out"] = left_out
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str) -> None:
    """Send records of `level` and above to stderr."""
    stream = logging.StreamHandler()
    stream.setFormatter(JsonLine())
    stream.addFilter(RateLimit())
    logging.basicConfig(level=level, handlers=[stream], force=True)
