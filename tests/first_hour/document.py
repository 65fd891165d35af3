"""What a document has its reader do: its commands, section by section."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GETTING_STARTED = "docs/getting-started.md"
DEPLOYMENT = "docs/deployment.md"
REPOSITORY = "REPOSITORY"
"""What stands in the documents for the address of the repository."""


@dataclass(frozen=True)
class Section:
    """One section, with its blocks of shell commands in order."""

    title: str
    blocks: tuple[str, ...]


def sections_of(text: str) -> list[Section]:
    """The sections of a Markdown text; those without commands too."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return [
        Section(title.strip(), tuple(re.findall(r"^```sh\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    ]
