"""Log lines of any service, reduced to templates with counts: what repeats counts once, and little of anybody's data is left."""

import json
import re
from collections import Counter
from collections.abc import Iterable

LIMIT = 20
MAX_TEMPLATE_LENGTH = 200

# PostgreSQL, Python, Java and the like write a word, Nginx one in brackets, Redis a `#` after its date.
_LEVEL = re.compile(
    r"^\d+:[XCSM] .{20,30} # (?:WARNING:? )?"
    r"|\b(?P<word>PANIC|FATAL|CRITICAL|ERROR|WARNING)\b:?"
    # With the process and the connection that Nginx names next.
    r"|\[(?P<bracketed>emerg|alert|crit|error|warn)\](?: \d+#\d+:)?(?: \*\d+)?"
)
_SEVERE = frozenset({"PANIC", "FATAL", "CRITICAL", "emerg", "alert", "crit"})

_PLACEHOLDERS = tuple(
    (re.compile(pattern, re.IGNORECASE), placeholder)
    for pattern, placeholder in (
        (r"\"(?:[^\"\\]|\\.)*(?:\"|$)|`[^`]*(?:`|$)|(?<!\w)'[^']*(?:'(?!\w)|$)", "<s>"),
        (r"\b\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|UTC|GMT)\b| ?[+-]\d\d:?\d\d\b)?)?", "<time>"),
        (r"\b\d{1,2}[ /](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ /]\d{4}[ :]\d\d:\d\d:\d\d(?:\.\d+)?", "<time>"),
        (r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b", "<time>"),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>"),
        (r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\d.]*\d)", "<ip>"),
        (r"\[[0-9a-f]*:[0-9a-f:.]+\](?::\d+)?|(?<![\w:.])(?=:*[0-9a-f])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", "<ip>"),
        (r"\b0x[0-9a-f]+\b|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", "<hex>"),
        (r"\d+(?:\.\d+)*", "<n>"),
    )
)
_PLACEHOLDER = re.compile(r"<(?:s|time|uuid|ip|hex|n)>")
_PROCESS = re.compile(r"^(?:\W*<(?:time|n)>)+[^\w<]*")
_WORD = re.compile(r"[^\W\d_]{3,}")


def count_templates(lines: Iterable[str], *, limit: int = LIMIT, max_length: int = MAX_TEMPLATE_LENGTH) -> tuple[str, ...]:
    """Lines of level warning and above as `3x ERROR could not connect to <ip>`; the severe levels first, then the most frequent.

    Quoted values, times, UUIDs, addresses, hexadecimal and other numbers are placeholders. Each is at most `max_length` characters long.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        found = _split(line)
        if found is not None:
            counts[found] += 1
    ordered = sorted(counts.items(), key=lambda item: (item[0][0] not in _SEVERE, -item[1]))
    return tuple(f"{count}x {level} {message}"[:max_length].rstrip() for (level, message), count in ordered[:limit])


def _split(line: str) -> tuple[str, str] | None:
    """Level and template of a line, None where the level does not count."""
    structured = _structured(line)
    if structured is not None:
        line = structured
    match = _LEVEL.search(line)
    if match is None:
        return None
    level = match["word"] or match["bracketed"] or "WARNING"
    # What stands before the level is mostly time and process; where it says more, it stays.
    before = _PROCESS.sub("", _templated(line[: match.start()]))
    kept = before if _WORD.search(_PLACEHOLDER.sub("", before)) else ""
    return level, f"{kept} {_templated(line[match.end() :])}".strip()


def _structured(line: str) -> str | None:
    """A line of JSON, as loggers write it, in plain words."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    level = fields.get("level") or fields.get("severity") or ""
    message = fields.get("message") or fields.get("msg") or ""
    # The last line of a traceback is the one that names the error.
    error = (str(fields.get("exception") or "").strip().splitlines() or [""])[-1]
    return " ".join(str(part) for part in (str(level).upper(), message, error) if part)


def _templated(text: str) -> str:
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return " ".join(text.split()).strip(" :-|,")
