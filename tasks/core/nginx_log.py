"""Nginx's error log, reduced to what repeats."""

import re
from collections import Counter
from collections.abc import Iterable

MAX_TEMPLATE_LENGTH = 160

# https://nginx.org/en/docs/ngx_core_module.html#error_log: date, time, [level], pid#tid:, *connection, message.
_LINE = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(?P<level>\w+)\] \d+#\d+: (?:\*\d+ )?(?P<message>.*)")
_WORTH_COUNTING = frozenset({"warn", "error", "crit", "alert", "emerg"})
# What follows describes the request, which is the visitor's word.
_REQUEST = re.compile(r",? (?:while [a-z ]+, )?client: .*")
_QUOTED = re.compile(r'"[^"]*"?')
_NUMBER = re.compile(r"\d+")


def count_templates(lines: Iterable[str]) -> dict[str, int]:
    """Lines of level warn and above as `level: message` with numbers and quoted words left out, the most frequent first."""
    counts = Counter(template for line in lines if (template := _template(line)))
    return dict(counts.most_common())


def _template(line: str) -> str:
    match = _LINE.match(line)
    if match is None or match["level"] not in _WORTH_COUNTING:
        return ""
    message = _NUMBER.sub("N", _QUOTED.sub('"..."', _REQUEST.sub("", match["message"])))
    return f"{match['level']}: {message}"[:MAX_TEMPLATE_LENGTH]
